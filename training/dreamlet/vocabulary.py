"""Vocabulary of dreamlet: subjects, colours, places, times, styles, and their words."""

from dataclasses import dataclass

from training.dreamlet.drawing.colours import Colour

COLOURS: dict[str, Colour] = {
    "red": (214, 52, 52),
    "orange": (242, 138, 40),
    "yellow": (250, 210, 58),
    "green": (72, 158, 78),
    "teal": (36, 170, 168),
    "blue": (54, 104, 206),
    "purple": (130, 76, 186),
    "pink": (242, 130, 176),
    "brown": (130, 84, 54),
    "grey": (142, 148, 158),
    "white": (245, 243, 238),
    "black": (46, 46, 58),
}
"""Name and the colour itself."""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "teal": ("teal", "turquoise", "cyan"),
    "blue": ("blue", "navy"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "brown": ("brown", "chocolate"),
    "grey": ("grey", "gray", "silver"),
    "white": ("white", "snow-white"),
    "black": ("black", "jet black"),
}
"""The first is the name that captions use most."""


@dataclass(frozen=True, slots=True)
class Noun:
    """What a subject is called, and what it is like when the caption leaves that open."""

    words: tuple[str, ...]
    """The first is the name that captions use most."""
    colours: tuple[str, ...]
    """Its colours when none is named."""
    places: tuple[str, ...]
    """Where it is found when no place is named."""


SUBJECTS: dict[str, Noun] = {
    "cat": Noun(
        ("cat", "kitten", "kitty"), ("orange", "grey", "black", "white", "brown"), ("mat", "room", "yard", "plain")
    ),
    "dog": Noun(("dog", "puppy", "hound"), ("brown", "white", "black", "orange"), ("yard", "beach", "mat", "plain")),
    "bird": Noun(("bird", "songbird", "robin"), ("blue", "red", "yellow", "brown"), ("yard", "forest", "plain")),
    "fish": Noun(("fish", "goldfish"), ("orange", "blue", "red", "teal"), ("sea", "sea", "plain")),
    "rabbit": Noun(("rabbit", "bunny", "hare"), ("white", "brown", "grey"), ("yard", "forest", "plain")),
    "fox": Noun(("fox", "vixen"), ("orange", "red"), ("forest", "forest", "mountains", "plain")),
    "owl": Noun(("owl",), ("brown", "grey", "white"), ("forest", "forest", "plain")),
    "bear": Noun(("bear", "teddy bear"), ("brown", "black", "white"), ("forest", "mountains", "room", "plain")),
    "penguin": Noun(("penguin",), ("black", "blue", "grey"), ("sea", "beach", "plain")),
    "turtle": Noun(("turtle", "tortoise"), ("green", "brown", "teal"), ("beach", "sea", "plain")),
    "butterfly": Noun(("butterfly",), ("orange", "blue", "purple", "yellow"), ("yard", "forest", "plain")),
    "house": Noun(
        ("house", "cottage", "hut"), ("white", "red", "yellow", "blue"), ("yard", "mountains", "forest", "beach")
    ),
    "castle": Noun(("castle", "fortress"), ("grey", "white", "brown"), ("mountains", "mountains", "forest", "beach")),
    "lighthouse": Noun(("lighthouse",), ("red", "white", "blue"), ("beach", "beach", "sea")),
    "windmill": Noun(("windmill", "mill"), ("white", "brown", "red"), ("yard", "mountains", "beach")),
    "tent": Noun(("tent",), ("orange", "green", "red", "blue"), ("forest", "mountains", "desert", "beach")),
    "tree": Noun(("tree",), ("green", "green", "green", "orange"), ("yard", "mountains", "plain")),
    "flower": Noun(
        ("flower", "blossom", "daisy"), ("pink", "red", "yellow", "purple", "white"), ("yard", "forest", "plain")
    ),
    "mushroom": Noun(("mushroom", "toadstool"), ("red", "brown"), ("forest", "forest", "plain")),
    "cactus": Noun(("cactus",), ("green",), ("desert", "desert", "plain")),
    "pumpkin": Noun(("pumpkin",), ("orange",), ("yard", "forest", "plain")),
    "boat": Noun(("boat", "sailboat", "ship"), ("red", "blue", "white", "brown"), ("sea", "sea", "sea", "beach")),
    "car": Noun(
        ("car", "automobile"), ("red", "blue", "yellow", "white", "black"), ("city", "city", "desert", "plain")
    ),
    "train": Noun(("train", "locomotive"), ("red", "black", "green", "blue"), ("city", "mountains", "desert")),
    "rocket": Noun(("rocket", "spaceship"), ("white", "red", "blue", "grey"), ("space", "space", "desert")),
    "balloon": Noun(
        ("balloon", "hot air balloon"), ("red", "blue", "yellow", "purple"), ("mountains", "desert", "plain")
    ),
    "ball": Noun(("ball",), ("red", "blue", "yellow", "green"), ("yard", "room", "beach", "plain")),
    "star": Noun(("star",), ("yellow",), ("space", "plain")),
    "cup": Noun(("cup", "mug", "teacup"), ("white", "red", "blue", "teal"), ("mat", "room", "plain")),
    "robot": Noun(("robot", "android"), ("grey", "blue", "white", "red"), ("city", "room", "space", "plain")),
    "snowman": Noun(("snowman",), ("red", "black", "blue"), ("yard", "forest", "mountains")),
    "umbrella": Noun(("umbrella", "parasol"), ("red", "yellow", "blue", "purple"), ("beach", "city", "plain")),
    "gift": Noun(("gift", "present", "gift box"), ("red", "blue", "green", "purple"), ("room", "mat", "plain")),
}
"""By the subject's name."""


@dataclass(frozen=True, slots=True)
class Where:
    """The words for a place."""

    phrases: tuple[str, ...]
    """After a subject: "a cat ..."."""
    landscapes: tuple[str, ...]
    """For the place alone."""
    has_weather: bool = True


PLACES: dict[str, Where] = {
    "mat": Where(("on a mat", "on the mat", "on a rug", "on a carpet"), ("a mat", "an empty rug")),
    "yard": Where(
        ("in a yard", "in the yard", "in a garden", "on the lawn", "by a fence"),
        ("a yard", "a garden", "a garden with a fence"),
    ),
    "mountains": Where(
        ("in the mountains", "in front of mountains", "in an alpine meadow", "near the mountains"),
        ("mountain landscape", "mountains", "a mountain landscape", "landscape with mountains", "the alps"),
    ),
    "sea": Where(
        ("in the sea", "on the ocean", "in the ocean", "on the water", "at sea"),
        ("the sea", "the ocean", "seascape", "open water"),
    ),
    "beach": Where(
        ("on a beach", "on the beach", "at the seaside", "by the shore"),
        ("a beach", "a sandy beach", "the seaside", "a tropical beach"),
    ),
    "desert": Where(
        ("in the desert", "in a desert", "among the dunes", "on the sand dunes"),
        ("a desert", "desert landscape", "sand dunes"),
    ),
    "forest": Where(
        ("in a forest", "in the woods", "in the forest", "among the trees"),
        ("a forest", "the woods", "forest landscape"),
    ),
    "city": Where(
        ("in a city", "in the city", "in a town", "on a street"), ("a city", "a city street", "cityscape", "a town")
    ),
    "space": Where(
        ("in space", "in outer space", "among the stars"),
        ("space", "outer space", "a starry galaxy"),
        has_weather=False,
    ),
    "room": Where(
        ("in a room", "in the living room", "indoors", "at home"), ("a room", "a living room", "an interior")
    ),
    "plain": Where(
        ("on a plain background", "on a simple background", "in front of a plain wall"),
        ("a plain background", "an empty background"),
        has_weather=False,
    ),
}
"""By the place's name."""


@dataclass(frozen=True, slots=True)
class When:
    """The words for a time of day or a weather."""

    phrases: tuple[str, ...]
    """At the end or the beginning: "a cat ..."."""
    adjectives: tuple[str, ...]
    """Before a landscape: "a ... beach"."""
    alone: tuple[str, ...]
    """The bare word, as in a list or in a negative prompt."""


TIMES: dict[str, When] = {
    "day": When(
        ("by day", "on a sunny day", "in daylight", "in the sunshine"), ("sunny", "bright"), ("day", "daytime", "sunny")
    ),
    "night": When(
        ("at night", "in the moonlight", "by night", "under the stars"),
        ("dark", "moonlit"),
        ("night", "nighttime", "dark"),
    ),
    "sunset": When(("at sunset", "at dusk", "in the evening"), ("evening", "sunset"), ("sunset", "dusk", "evening")),
    "dawn": When(
        ("at dawn", "at sunrise", "in the early morning"), ("morning", "sunrise"), ("dawn", "sunrise", "morning")
    ),
    "snow": When(
        ("in the snow", "in winter", "while it snows", "on a snowy day"),
        ("snowy", "wintry"),
        ("snow", "snowy", "winter"),
    ),
    "rain": When(("in the rain", "on a rainy day", "while it rains"), ("rainy",), ("rain", "rainy")),
    "fog": When(("in fog", "in the mist", "on a foggy day"), ("foggy", "misty"), ("fog", "foggy", "mist")),
}
"""By the name of the time or weather."""

STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "digital": ("digital art", "digital art style", "flat illustration", "vector art", "illustration"),
    "cartoon": ("cartoon", "comic style", "cartoon style", "comic book panel"),
    "pixel": ("pixel art", "8-bit pixel art", "retro game style", "pixel art style"),
    "watercolor": ("watercolor", "watercolour painting", "watercolor style", "painting"),
}
"""By the style's name; a caption that names none means the first."""

SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "normal": (),
    "big": ("big", "large", "huge"),
}
"""How large a subject is in the picture; `normal` is not said."""

FLAW_WORDS: dict[str, tuple[str, ...]] = {
    "blurry": ("blurry", "blurred", "out of focus"),
    "low quality": ("low quality", "low resolution", "bad quality"),
    "distorted": ("distorted", "deformed", "warped"),
}
"""What a picture may suffer from; these words belong into negative prompts."""

PRAISE: tuple[str, ...] = (
    "detailed", "highly detailed", "high quality", "beautiful", "masterpiece", "best quality", "4k", "sharp",
    "vivid colors", "trending", "clean lines", "soft light", "cute", "award winning",
)  # fmt: skip
"""Words that people add and that change nothing here."""
