"""Which views exist. Adding one is its own file and one line in ``default_registry``."""

from __future__ import annotations

from collections.abc import Iterable

from materializers.materializer import Scope, TableSpec, View
from schemas.errors import TidalError


class RegistryError(TidalError):
    """Views that cannot live together."""


class MaterializerRegistry:
    """The views of a worker, by scope. It knows none of them by name."""

    def __init__(self, views: Iterable[View]) -> None:
        """Raises:
        RegistryError: two views have one name, or a table is claimed in two scopes or with two settings.
        """
        self._views = tuple(views)
        names = [view.name for view in self._views]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise RegistryError(f"views {', '.join(doubled)} are registered twice; give each its own name")
        self._scope_of_table: dict[str, Scope] = {}
        self._specs: dict[str, TableSpec] = {}
        for view in self._views:
            for spec in view.tables:
                self._claim(view, spec)

    def __iter__(self) -> Iterable[View]:
        return iter(self._views)

    def of(self, scope: Scope) -> tuple[View, ...]:
        """The views that a scope's shard feeds, in order of registration."""
        return tuple(view for view in self._views if view.scope is scope)

    def tables(self, scope: Scope) -> tuple[TableSpec, ...]:
        """The tables of a scope's views, each once: views of one scope may share a table."""
        return tuple(spec for name, spec in self._specs.items() if self._scope_of_table[name] is scope)

    def _claim(self, view: View, spec: TableSpec) -> None:
        scope = self._scope_of_table.setdefault(spec.name, view.scope)
        known = self._specs.setdefault(spec.name, spec)
        if scope is not view.scope or known != spec:
            raise RegistryError(
                f"view {view.name}: table {spec.name} already belongs to scope {scope} as {known}; "
                "views share a table only inside one scope, with one specification"
            )


def default_registry() -> MaterializerRegistry:
    """Every view of the engine."""
    from materializers.views import (
        co_engagement,
        cohort_signals,
        distinct_users,
        edges,
        entities,
        global_signals,
        preference,
        relationships,
        segments,
        user_state,
    )

    return MaterializerRegistry(
        (
            user_state.VIEW,
            preference.VIEW,
            relationships.VIEW,
            co_engagement.VIEW,
            segments.VIEW,
            global_signals.VIEW,
            cohort_signals.VIEW,
            distinct_users.VIEW,
            entities.VIEW,
            edges.VIEW,
        )
    )
