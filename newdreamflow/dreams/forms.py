"""The form for a new dream: its fields and choices, and the `Wish` that it returns."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from typing import Any, Final

from django import forms
from django.utils.text import slugify

from newdreamflow.dreams import inputs, photos
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.growth import DIRECTIONS, LARGEST, grown_size
from newdreamflow.dreams.models import MAX_SEED, MOST_PICTURES, SIZES, Dream, steps_taken
from newdreamflow.dreams.services import Wish
from newdreamflow.dreams.styles import STYLES
from newdreamflow.form_wording import WordedFormMixin
from newdreamflow.text import folded, has_visible

__all__ = [
    "LONG_SIDES",
    "SHAPES",
    "SHORT_SIDES",
    "DreamForm",
    "dimensions",
    "first_values",
    "model_of",
    "values_of",
]

SHAPES: Final = {"square": "Square", "landscape": "Landscape", "portrait": "Portrait"}
LONG_SIDES: Final = SIZES[1:]
"""The smallest size is too small to have a smaller side beside it."""
SHORT_SIDES: Final = {long: min(SIZES, key=lambda short: abs(short - long * 2 / 3)) for long in LONG_SIDES}
"""About two thirds of the long side, and one of the sizes that models like."""
_STRENGTH: Final = 0.65
_MOST_TAGS: Final = 8
_LONGEST_TAG: Final = 40

# The GPU server refuses the first; a text encoder reads the second as nothing.
_CONTROL_CHARACTERS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def dimensions(shape: str, long_side: int) -> tuple[int, int]:
    """Width and height, in pixels."""
    if shape == "square":
        return long_side, long_side
    short_side = SHORT_SIDES[long_side]
    return (long_side, short_side) if shape == "landscape" else (short_side, long_side)


class _Text(forms.CharField):
    """Text without control characters; what holds nothing that can be seen is empty."""

    def to_python(self, value: object) -> str:
        """The text."""
        text = super().to_python(value) or ""
        text = _CONTROL_CHARACTERS.sub(" ", text.replace("\r\n", "\n")).strip()
        return text if has_visible(text) else ""


_NO_SUBMISSION: Final = dict.fromkeys(
    ("required", "invalid"), "Nothing was sent: the form had expired. Please send it again."
)


class DreamForm(WordedFormMixin, forms.Form):
    """What to draw, and how."""

    ADVANCED = ("model", "num_inference_steps", "guidance_scale", "seed", "negative_prompt")
    """Folded away, unless something is wrong in there."""

    prompt = _Text(
        max_length=1000,
        label="What do you dream of?",
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "an owl in a forest at night"}),
        error_messages={"required": "Say in a few words what to draw."},
    )
    style = forms.ChoiceField(
        required=False,
        widget=forms.RadioSelect,
        choices=[("", "As it comes"), *((key, style.label) for key, style in STYLES.items())],
    )
    shape = forms.ChoiceField(widget=forms.RadioSelect, choices=list(SHAPES.items()))
    size = forms.TypedChoiceField(
        label="Longer side", coerce=int, choices=[(size, f"{size} pixels") for size in LONG_SIDES]
    )
    num_images = forms.TypedChoiceField(
        label="Pictures", coerce=int, choices=[(number, str(number)) for number in range(1, MOST_PICTURES + 1)]
    )
    photo = forms.FileField(
        required=False,
        label="Begin with a photo",
        widget=forms.FileInput(attrs={"accept": "image/png,image/jpeg,image/webp"}),
        error_messages={"empty": "The photo is an empty file."},
    )
    hires = forms.BooleanField(required=False, label="Twice as wide and high, with finer details")
    model = forms.ChoiceField(required=False)
    negative_prompt = _Text(
        max_length=1000,
        required=False,
        label="What should not be in it",
        widget=forms.Textarea(attrs={"rows": 1, "placeholder": "blurry, text"}),
    )
    num_inference_steps = forms.IntegerField(
        label="Steps", min_value=1, max_value=100, help_text="More take longer and cost more."
    )
    guidance_scale = forms.FloatField(
        label="Guidance",
        min_value=0,
        max_value=30,
        help_text="How closely to follow your words; at 1 or less it is off, which costs half.",
        widget=forms.NumberInput(attrs={"step": "0.1"}),
    )
    seed = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=MAX_SEED,
        help_text="The same seed and settings give the same picture. Empty: a new one each time.",
        widget=forms.NumberInput(attrs={"placeholder": "a new one each time"}),
    )
    tags = _Text(
        max_length=400,
        required=False,
        help_text="Words to find it by, between commas.",
        widget=forms.TextInput(attrs={"placeholder": "owl, night", "autocapitalize": "none"}),
    )
    is_public = forms.BooleanField(required=False, label="Show it in the public gallery when it is done")
    submission = forms.UUIDField(widget=forms.HiddenInput, error_messages=_NO_SUBMISSION)
    over = forms.CharField(widget=forms.HiddenInput)
    part = forms.BooleanField(required=False, widget=forms.HiddenInput)
    mask = forms.FileField(
        label="The part to redraw",
        help_text="A PNG file of the picture’s size: white is redrawn, black stays.",
        widget=forms.FileInput(attrs={"accept": "image/png"}),
        error_messages=dict.fromkeys(("required", "empty"), "Nothing is marked. Paint over the part to redraw."),
    )
    expand = forms.ChoiceField(label="It grows", choices=list(DIRECTIONS.items()))
    strength = forms.FloatField(
        min_value=0,
        max_value=1,
        help_text="0 keeps the picture, 1 redraws it completely.",
        widget=forms.NumberInput(attrs={"step": "0.05"}),
    )

    def __init__(self, *arguments: Any, source: inputs.Input | None = None, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        """Make a form.

        Args:
            *arguments: as Django has them.
            source: the picture to draw over; it has the size of the result. None: drawn from words alone.
            **named: as Django has them.
        """
        super().__init__(*arguments, **named)
        self._source = source
        is_part = str(self.data.get("part") if self.is_bound else self.initial.get("part")) == "True"
        self._models = dreams_settings.DREAMS_MODELS
        unused = ["shape", "size", "photo", "hires"] if source is not None else ["over", "part", "strength"]
        if len(self._models) < 2:
            unused.append("model")
        if source is None or not is_part:
            unused.append("mask")
        self._grows = source is not None and not is_part and bool(self.data.get("expand") or self.initial.get("expand"))
        if not self._grows:
            unused.append("expand")
        for name in unused:
            del self.fields[name]
        if "model" in self.fields:
            self.fields["model"].choices = [(name, name.rpartition("/")[2]) for name in self._models]  # type: ignore[attr-defined]

    def clean_photo(self) -> bytes | None:
        """The photo, as a PNG file of the size that was chosen."""
        file = self.cleaned_data["photo"]
        if file is None:
            return None
        try:
            return photos.decode(file.read(), self.cleaned_data.get("size") or first_values()["size"])
        except photos.PhotoError as error:
            raise forms.ValidationError(str(error)) from None

    def clean_mask(self) -> bytes:
        """The mask, checked and written anew."""
        source = self._source
        assert source is not None  # noqa: S101 -- else the field is not there
        try:
            return inputs.read_mask(self.cleaned_data["mask"].read(), source.width, source.height)
        except inputs.MaskError as error:
            raise forms.ValidationError(str(error)) from None

    def clean_expand(self) -> str:
        """The direction, if there is room."""
        source, direction = self._source, str(self.cleaned_data["expand"])
        assert source is not None  # noqa: S101 -- else the field is not there
        width, height = grown_size(direction, source.width, source.height)
        if max(width, height) > LARGEST:
            raise forms.ValidationError(f"It would be {width} × {height} pixels; at most {LARGEST} are drawn.")
        return direction

    def clean(self) -> dict[str, Any]:
        """Whether anything would be drawn at all."""
        data: dict[str, Any] = self.cleaned_data
        steps, strength = data.get("num_inference_steps"), data.get("strength")
        if steps and strength is not None and not steps_taken(steps, strength):
            self.add_error("strength", f"Of {steps} steps none would be taken. Raise the strength or the steps.")
        return data

    def add_error(self, field: str | None, error: Any) -> None:  # noqa: ANN401 -- Django's own signature
        """Note it. A form whose hidden id is wrong gets a new one, and says so at its head."""
        super().add_error(field, error)
        if field == "submission":
            self.data = {**self.data.dict(), field: uuid.uuid4()} if hasattr(self.data, "dict") else self.data

    def clean_tags(self) -> list[str]:
        """The words, each once, as they are written in addresses."""
        words = [
            slugify(folded(word), allow_unicode=True)[:_LONGEST_TAG] for word in self.cleaned_data["tags"].split(",")
        ]
        tags = list(dict.fromkeys(word for word in words if word))
        if len(tags) > _MOST_TAGS:
            raise forms.ValidationError(f"At most {_MOST_TAGS} tags, not {len(tags)}.")
        return tags

    def uploaded_photo(self) -> bytes | None:
        """The uploaded photo, ready; None if it cannot be used. The form then says only what is wrong with it."""
        for name in self.errors.keys() - {"photo"}:
            del self.errors[name]
        return self.cleaned_data.get("photo")

    def known_values(self) -> dict[str, Any]:
        """What the next form begins with, where this one is only a step on the way: all that is valid."""
        wrong, own = self.errors, {"submission", "photo", "mask"}
        known = {name: value for name, value in self.cleaned_data.items() if name not in own | wrong.keys()}
        if "tags" in known:
            known["tags"] = ", ".join(known["tags"])
        unfold = bool(known.get("negative_prompt") or known.get("seed") is not None)
        return {**first_values(), **known, "unfold": unfold}

    @property
    def is_unfolded(self) -> bool:
        """Whether something is to be seen among what is folded away."""
        return any(name in self.errors for name in self.ADVANCED) if self.is_bound else bool(self.initial.get("unfold"))

    def wish(self) -> Wish:
        """What a valid form asks for."""
        data = self.cleaned_data
        source = self._source
        if source is None:
            width, height = dimensions(data["shape"], data["size"])
        else:
            width, height = source.width, source.height
            if self._grows:
                width, height = grown_size(data["expand"], width, height)
            source = replace(source, mask=data.get("mask"))
        return Wish(
            prompt=data["prompt"],
            negative_prompt=data["negative_prompt"],
            style=data["style"],
            num_inference_steps=data["num_inference_steps"],
            guidance_scale=data["guidance_scale"],
            width=width,
            height=height,
            seed=data["seed"],
            num_images=data["num_images"],
            over=source,
            strength=data.get("strength"),
            expand=data.get("expand", ""),
            hires=data.get("hires", False),
            model=data.get("model") or next(iter(self._models), ""),
            is_public=data["is_public"],
            tags=data["tags"],
        )

    def submission_of(self, wish: Wish) -> uuid.UUID:
        """Under which this wish is one dream, however often the form is sent.

        Not the form's own alone: whoever goes back, changes something and sends it again wants another dream.
        """
        return uuid.uuid5(self.cleaned_data["submission"], repr(wish))


def first_values() -> dict[str, Any]:
    """What an empty form begins with."""
    wish = Wish(prompt="")
    return {
        "submission": uuid.uuid4(),
        "style": "",
        "shape": "square",
        "size": _nearest_long_side(dreams_settings.DREAMS_DEFAULT_SIZE),
        "num_images": wish.num_images,
        "num_inference_steps": wish.num_inference_steps,
        "guidance_scale": wish.guidance_scale,
        "strength": _STRENGTH,
        "model": next(iter(dreams_settings.DREAMS_MODELS), ""),
    }


def values_of(dream: Dream) -> dict[str, Any]:
    """What a form begins with that changes a dream."""
    shape = "square" if dream.width == dream.height else "landscape" if dream.width > dream.height else "portrait"
    return {
        "submission": uuid.uuid4(),
        "prompt": dream.prompt,
        "negative_prompt": dream.negative_prompt,
        "style": dream.style if dream.style in STYLES else "",
        "shape": shape,
        "size": _nearest_long_side(max(dream.width, dream.height)),
        "num_images": dream.num_images,
        "num_inference_steps": dream.num_inference_steps,
        "guidance_scale": dream.guidance_scale,
        "seed": dream.seed,
        "expand": dream.expand,
        "hires": dream.hires,
        "model": model_of(dream),
        "strength": _STRENGTH if dream.strength is None else dream.strength,
        "tags": ", ".join(tag.name for tag in dream.tags.all()),
        "unfold": True,
    }


def model_of(dream: Dream) -> str:
    """The model that a dream is drawn with again: the same, if it is still offered."""
    models = dreams_settings.DREAMS_MODELS
    return dream.wanted_model if dream.wanted_model in models else next(iter(models), "")


def _nearest_long_side(pixels: int) -> int:
    return min(LONG_SIDES, key=lambda size: abs(size - pixels))
