"""The thesis' tables and figures and what lies beyond, as declared runs with seeds; their results; and one report."""
