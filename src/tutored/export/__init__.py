"""A student for use without our package: ONNX or `torch.export`, refused unless it computes the same."""

from tutored.export.network import Options
from tutored.export.onnx import export_onnx
from tutored.export.parity import NotEqualError, Parity
from tutored.export.program import export_program

__all__ = ["NotEqualError", "Options", "Parity", "export_onnx", "export_program"]
