"""Carbon intensity of a place by CodeCarbon's tables, or an error: CodeCarbon itself takes a wider average."""

from __future__ import annotations

import math
from typing import Any

from adaptbench.errors import UsageError
from adaptbench.registry import did_you_mean


def given_factor(g_per_kwh: object) -> float:
    """A carbon intensity that a user gave, g CO2e/kWh; 0 is one.

    Raises:
        UsageError: negative, not finite, or no number.
    """
    if isinstance(g_per_kwh, bool) or not isinstance(g_per_kwh, int | float) or not 0 <= g_per_kwh < math.inf:
        raise UsageError(
            f"meters.codecarbon.grid_g_per_kwh: {g_per_kwh!r} is no carbon intensity.",
            todo="Give grams of CO2e a kWh, 0 or more, or leave it out for the country's average.",
        )
    return float(g_per_kwh)


def known_factor(country: str, region: str | None) -> float:
    """What CodeCarbon's tables hold for a place, g CO2e/kWh.

    Args:
        country: ISO 3166, three letters.
        region: as CodeCarbon names it; None for the whole country.

    Raises:
        UsageError: the tables do not know the country, or the region in it.
    """
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    class RegionOnly(Emissions):  # type: ignore[misc]
        def get_country_emissions(self, energy: Any, geo: Any) -> float:
            raise KeyError(geo.region)

    data, one = DataSource(), Energy.from_energy(kWh=1.0)
    known = data.get_global_energy_mix_data()
    if country not in known:
        raise UsageError(
            f"meters.codecarbon.country_iso_code: CodeCarbon knows no country '{country}'.",
            why="It would take the world's average grid instead.",
            todo=f"{did_you_mean(country, known)}Give an ISO 3166 code of three letters, such as DEU.",
        )
    place = GeoMetadata(country_iso_code=country, region=region)
    if region is None:
        return 1000 * float(Emissions(data).get_country_emissions(one, place))
    try:
        return 1000 * float(RegionOnly(data).get_region_emissions(one, place))
    except Exception as error:  # a KeyError, a ValueError or a TypeError, by country
        raise UsageError(
            f"meters.codecarbon.region: CodeCarbon knows no region '{region}' of {country}.",
            why="It would take the country's average and still name the region.",
            todo=f"{did_you_mean(region, _regions(data, country))}Leave it out for the country's average; "
            "CodeCarbon has regions of the USA, Canada, China and the Nordic countries.",
        ) from error


def _regions(data: Any, country: str) -> list[str]:
    """Names to suggest; none where they lie in another table."""
    for ask in (data.get_country_emissions_data, data.get_country_energy_mix_data):
        try:
            return [name for name in ask(country.lower()) if not name.startswith("_")]
        except Exception:  # no such table for this country
            continue
    return []
