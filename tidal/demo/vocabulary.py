"""The words that the demo's site is made of: subjects by category, title patterns, names, locales."""

from __future__ import annotations

from typing import Final, NamedTuple

# Every subject has an embedding near its category's, so that taste and text agree.
SUBJECTS_BY_CATEGORY: Final[dict[str, tuple[str, ...]]] = {
    "music": ("piano", "guitar", "jazz", "singing", "violin", "drums", "synthesizer", "choir"),
    "cooking": ("bread", "pasta", "curry", "ramen", "pastry", "barbecue", "pickles", "soup"),
    "travel": ("night trains", "Lisbon", "Patagonia", "island ferries", "Kyoto", "the Alps", "camper vans"),
    "fitness": ("running", "yoga", "climbing", "swimming", "strength", "cycling", "rowing"),
    "gaming": ("speedruns", "board games", "chess", "retro consoles", "puzzles", "strategy"),
    "programming": ("Python", "databases", "compilers", "web design", "networks", "robots", "typography"),
    "science": ("black holes", "volcanoes", "genetics", "weather", "the deep sea", "particles", "fossils"),
    "gardening": ("tomatoes", "roses", "compost", "bonsai", "beehives", "orchards", "ponds"),
    "film": ("film noir", "animation", "documentaries", "westerns", "film scores", "short films"),
    "sport": ("football", "basketball", "tennis", "sailing", "judo", "cricket", "skating"),
    "photography": ("portraits", "street photography", "macro", "the darkroom", "landscapes", "drones"),
    "history": ("Rome", "the Silk Road", "castles", "old maps", "railways", "lighthouses"),
    "animals": ("cats", "dogs", "parrots", "otters", "horses", "tortoises"),
    "craft": ("woodwork", "knitting", "ceramics", "bookbinding", "origami", "blacksmithing"),
}


class TitlePattern(NamedTuple):
    """One way to name a piece of content; `tag` is what the pattern says about its kind."""

    text: str
    tag: str


TUTORIAL: Final = TitlePattern("{subject} tutorial: {detail}", "tutorial")

TITLE_PATTERNS: Final = (
    TUTORIAL,
    TitlePattern("{subject} for beginners", "beginner"),
    TitlePattern("What nobody tells you about {subject}", "opinion"),
    TitlePattern("Ten quiet minutes of {subject}", "ambient"),
    TitlePattern("{subject}, slowly: {detail}", "slow"),
    TitlePattern("A year of {subject}", "diary"),
    TitlePattern("{subject} mistakes and how to mend them", "tips"),
    TitlePattern("The story of {subject}", "story"),
    TitlePattern("{subject} live: {detail}", "live"),
    TitlePattern("An expert answers your {subject} questions", "interview"),
)

DETAILS: Final = (
    "the first hour", "one simple idea", "in small steps", "with what you have at home", "without fear",
    "for busy people", "from the very start", "by ear and by eye", "the hard part", "in a single weekend",
    "what to do next", "seven short lessons",
)  # fmt: skip

DESCRIPTION_PATTERNS: Final = (
    "{name} shows {subject} {detail}. Part of a series on {category}.",
    "A closer look at {subject} with {name}, and what it has to do with {neighbour}.",
    "{name} tries {subject} {detail}; questions are answered at the end.",
    "Everything about {subject} that fits into {minutes} minutes.",
    "From {neighbour} to {subject}: notes, examples and a little patience.",
)

FORMATS: Final = ("video", "article", "podcast", "short")
FORMAT_SHARES: Final = (0.55, 0.2, 0.1, 0.15)

GIVEN_NAMES: Final = (
    "Ada", "Bela", "Chidi", "Dora", "Emil", "Fatima", "Goro", "Hana", "Ines", "Jonas", "Kofi", "Lena",
    "Mateo", "Nora", "Omar", "Priya", "Quinn", "Rosa", "Sami", "Tala", "Uma", "Viktor", "Wen", "Yara", "Zoe",
)  # fmt: skip
FAMILY_NAMES: Final = (
    "Abara", "Brandt", "Castillo", "Dufour", "Eriksen", "Fonseca", "Greene", "Hassan", "Ito", "Jansen",
    "Kaur", "Lindqvist", "Moreau", "Novak", "Okafor", "Petrov", "Rossi", "Sato", "Tran", "Weber",
)  # fmt: skip

LANGUAGE_BY_LOCALE: Final = {
    "US": "en", "GB": "en", "CA": "en", "IN": "en",
    "DE": "de", "FR": "fr", "BR": "pt", "MX": "es", "JP": "ja",
}  # fmt: skip
LOCALE_SHARES: Final = (0.30, 0.10, 0.07, 0.13, 0.10, 0.09, 0.09, 0.06, 0.06)
GENDERS: Final = ("F", "M", "X")
GENDER_SHARES: Final = (0.48, 0.48, 0.04)
