"""Identity: judgements in force to clusters, and the canonical member of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Naming = tuple[int, int]  # (position, ordinal within the event): when the log first named an id


@dataclass(frozen=True, slots=True)
class Judgement:
    """One recorded judgement about two or more entities: `same`, `different` or `unsure`."""

    position: int
    entities: tuple[str, ...]
    verdict: str


class Clusters:
    """The partition of ids that the `same` judgements make; an id that none of them names stands alone."""

    def __init__(self, judgements: Iterable[Judgement], first_named: Mapping[str, Naming]) -> None:
        """Join what is judged the same; the canonical member of a cluster is the one the log named first."""
        self._different: list[Judgement] = []
        parent: dict[str, str] = {}

        def find(entity: str) -> str:
            root = entity
            while parent.setdefault(root, root) != root:
                root = parent[root]
            while parent[entity] != root:
                parent[entity], entity = root, parent[entity]
            return root

        for judgement in judgements:
            if judgement.verdict == "same":
                root = find(judgement.entities[0])
                for entity in judgement.entities[1:]:
                    parent[find(entity)] = root
            elif judgement.verdict == "different":
                self._different.append(judgement)
        groups: dict[str, list[str]] = {}
        for entity in list(parent):
            groups.setdefault(find(entity), []).append(entity)
        self._canonical: dict[str, str] = {}
        self._members: dict[str, tuple[str, ...]] = {}
        for group in groups.values():
            canonical = min(group, key=first_named.__getitem__)
            self._members[canonical] = tuple(sorted(group))
            for entity in group:
                self._canonical[entity] = canonical

    def canonical(self, entity: str) -> str:
        """Return the canonical id of the entity's cluster: itself, if nothing joins it to another."""
        return self._canonical.get(entity, entity)

    def members(self, canonical: str) -> tuple[str, ...]:
        """Return all ids of a cluster, sorted, given its canonical id."""
        return self._members.get(canonical, (canonical,))

    def merged(self) -> Mapping[str, tuple[str, ...]]:
        """Return the clusters of several ids, by canonical id."""
        return self._members

    def conflicts(self) -> list[Judgement]:
        """Return the `different` judgements that the `same` judgements contradict."""
        return [
            judgement
            for judgement in self._different
            if len({self.canonical(entity) for entity in judgement.entities}) < len(judgement.entities)
        ]
