"""What every section of the configuration is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Text = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]
"""A name that may be a whole number."""


def _listed(given: Any) -> Any:
    if not isinstance(given, str | int | float):
        return given
    rather = "names, not their places," if re.fullmatch(r"[\d., -]+", str(given)) else "names"
    raise ValueError(f"got {given!r}, which is no list; give {rather} in brackets, such as [a, b]")


Names = Annotated[tuple[Text, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """Frozen; an unknown key is an error, and so is NaN or an infinite number.

    Attributes:
        RECIPES: by recipe, the defaults that differ there from those of the fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
