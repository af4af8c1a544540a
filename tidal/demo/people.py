"""Users and creators of the demo's site."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tidal.demo import vocabulary

FIRST_USER: Final = "u1"

# Concentration of a user's interests: below 1, most of them follow two or three categories.
INTEREST_CONCENTRATION: Final = 0.25
# u1 is busy enough to have tastes, and still has most of the site unseen.
FIRST_USER_ACTIVITY_QUANTILE: Final = 0.97

AGE_MEAN_YEARS: Final = 31.0
AGE_SPREAD_YEARS: Final = 13.0


class Users(NamedTuple):
    """The site's users, column-wise; row i of every column is one user.

    records: what is published to the log, with `id`. interests: f64[users, categories], rows sum to 1.
    activity: f64[users], the share of all events that a user causes, sums to 1.
    """

    records: list[dict[str, Any]]
    interests: npt.NDArray[np.float64]
    activity: npt.NDArray[np.float64]

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.records]

    def select(self, locale: str, ages: tuple[int, int]) -> npt.NDArray[np.intp]:
        """Rows of the users of one locale whose age in years lies in `ages`, both ends included."""
        low, high = ages
        chosen = [
            row
            for row, user in enumerate(self.records)
            if user["locale"] == locale and low <= user["age"] <= high
        ]
        return np.asarray(chosen, dtype=np.intp)


def make_users(rng: np.random.Generator, count: int) -> Users:
    """`count` users u1, u2, …; u1 is always an American of 21, so that the reference queries know a user."""
    locales = rng.choice(list(vocabulary.LANGUAGE_BY_LOCALE), size=count, p=vocabulary.LOCALE_SHARES)
    ages = np.clip(rng.normal(AGE_MEAN_YEARS, AGE_SPREAD_YEARS, size=count), 13, 79).astype(int)
    genders = rng.choice(vocabulary.GENDERS, size=count, p=vocabulary.GENDER_SHARES)
    locales[0], ages[0] = "US", 21
    records = [
        {
            "id": f"u{row + 1}",
            "locale": str(locale),
            "language": vocabulary.LANGUAGE_BY_LOCALE[str(locale)],
            "age": int(age),
            "gender": str(gender),
        }
        for row, (locale, age, gender) in enumerate(zip(locales, ages, genders, strict=True))
    ]
    categories = len(vocabulary.SUBJECTS_BY_CATEGORY)
    interests = rng.dirichlet(np.full(categories, INTEREST_CONCENTRATION), size=count)
    interests[0] = _musician(categories)
    activity = rng.lognormal(0.0, 0.9, size=count)
    activity[0] = np.quantile(activity, FIRST_USER_ACTIVITY_QUANTILE)
    return Users(records, interests, activity / activity.sum())


def _musician(categories: int) -> npt.NDArray[np.float64]:
    """Interests of u1: mostly music, some cooking, a little of the rest."""
    interests = np.full(categories, 0.1 / (categories - 2))
    names = list(vocabulary.SUBJECTS_BY_CATEGORY)
    interests[names.index("music")] = 0.7
    interests[names.index("cooking")] = 0.2
    return interests


def make_creators(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """`count` creator records c1, c2, …, each with a name and a country."""
    given = rng.choice(vocabulary.GIVEN_NAMES, size=count)
    family = rng.choice(vocabulary.FAMILY_NAMES, size=count)
    countries = rng.choice(list(vocabulary.LANGUAGE_BY_LOCALE), size=count, p=vocabulary.LOCALE_SHARES)
    return [
        {"id": f"c{row + 1}", "name": f"{given[row]} {family[row]}", "country": str(countries[row])}
        for row in range(count)
    ]
