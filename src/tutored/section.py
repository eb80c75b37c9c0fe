"""What every section of the configuration is made of."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tutored.errors import InputError

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


Checked = TypeVar("Checked", bound=Section)


def validated(section: type[Checked], given: Any, origin: str) -> Checked:
    """What a user gave for a section. Raises InputError: beginning with `origin`; every unknown key and impossible
    value is named.
    """
    try:
        return section.model_validate(given)
    except ValidationError as error:
        told = []
        for item in error.errors():
            place = ".".join(map(str, item["loc"]))
            text = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
                text = f"unknown; possible: {', '.join(section.model_fields)}"
            elif item["type"] not in ("missing", "value_error", "extra_forbidden"):
                text += f", got {item['input']!r}"
            told.append(f"{place}: {text}" if place else text)
        raise InputError(f"{origin}: {'; '.join(told)}") from error
