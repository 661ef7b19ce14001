"""The resolver: against every combination on small random graphs, and what it says when there is none."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput, Unresolvable
from noodle_ray.modules.catalogue import Target
from noodle_ray.modules.manifest import Manifest
from noodle_ray.modules.release import Lock, Release
from noodle_ray.modules.resolver import DependencyResolver, loading_order
from noodle_ray.modules.versions import VersionConstraint
from noodle_ray.resources import Demand

NAMES = ("a", "b", "c", "d")


def release(name: str, version: str, yanked: bool = False, **requires: str) -> Release:
    return of(Manifest(name=name, version=version, entry_point="file", requires=requires), yanked)


def of(manifest: Manifest, yanked: bool = False) -> Release:
    name, version = manifest.name, manifest.version
    return Release(
        manifest=manifest, sha256=f"{abs(hash((name, version))):064x}", size_bytes=1, published_at=0, yanked=yanked
    )


def resolve(requirements: Mapping[str, str], *catalogue: Release, **options: Any) -> dict[str, str]:
    return DependencyResolver().resolve(requirements, catalogue, **options).versions()


class TestChoice:
    def test_takes_the_newest(self) -> None:
        assert resolve({"a": ""}, release("a", "1.9"), release("a", "1.10")) == {"a": "1.10"}

    def test_takes_an_older_one_where_the_newest_leads_nowhere(self) -> None:
        catalogue = [release("a", "1", b="<2"), release("a", "2", b=">=3"), release("b", "1"), release("b", "2")]
        assert resolve({"a": ""}, *catalogue) == {"b": "1", "a": "1"}

    def test_goes_back_over_several_modules(self) -> None:
        catalogue = [
            release("a", "2", c=">=2"),
            release("a", "1", c=">=1"),
            release("b", "2", c="<2"),
            release("b", "1", c=">=1"),
            release("c", "1"),
            release("c", "2"),
        ]
        chosen = resolve({"a": "", "b": ">=2"}, *catalogue)
        assert chosen == {"c": "1", "a": "1", "b": "2"}

    def test_prefers_what_is_there_already(self) -> None:
        catalogue = [release("a", "1"), release("a", "2"), release("a", "3")]
        assert resolve({"a": ""}, *catalogue, prefer={"A": "2.0"}) == {"a": "2"}
        assert resolve({"a": ">=3"}, *catalogue, prefer={"a": "2"}) == {"a": "3"}

    def test_yanked_versions_only_where_asked(self) -> None:
        catalogue = [release("a", "1"), release("a", "2", yanked=True)]
        assert resolve({"a": ""}, *catalogue) == {"a": "1"}
        assert resolve({"a": "==2"}, *catalogue) == {"a": "2"}
        assert resolve({"a": ""}, *catalogue, prefer={"a": "2"}) == {"a": "2"}
        with pytest.raises(Unresolvable, match=r"there is only 2 \(yanked\), 1"):
            resolve({"a": ">=2"}, *catalogue)

    def test_prereleases_only_where_asked(self) -> None:
        catalogue = [release("a", "1"), release("a", "2rc1")]
        assert resolve({"a": ""}, *catalogue) == {"a": "1"}
        assert resolve({"a": ">=2rc1"}, *catalogue) == {"a": "2rc1"}
        assert resolve({"a": ""}, *catalogue, prereleases=True) == {"a": "2rc1"}

    def test_leaves_out_what_nobody_needs(self) -> None:
        assert resolve({"a": ""}, release("a", "1"), release("b", "1")) == {"a": "1"}

    def test_normalises_names(self) -> None:
        catalogue = [release("word-count", "1")]
        assert resolve({"Word_Count": ""}, *catalogue) == {"word-count": "1"}

    def test_the_order_of_the_catalogue_does_not_matter(self) -> None:
        catalogue = [release(name, version) for name in NAMES for version in ("1", "2", "3")]
        requirements = dict.fromkeys(reversed(NAMES), ">=1")
        locks = [DependencyResolver().resolve(requirements, some) for some in (catalogue, catalogue[::-1])]
        assert locks[0] == locks[1]


class TestLock:
    def test_has_hashes_and_a_loading_order(self) -> None:
        catalogue = [release("a", "1", b="", c=""), release("b", "1", d=""), release("c", "1", d=""), release("d", "1")]
        lock = DependencyResolver().resolve({"a": ">=1"}, catalogue)
        assert [module.name for module in lock.modules] == ["d", "b", "c", "a"]
        assert lock.module("b").sha256 == catalogue[1].sha256
        assert lock.module("b").requires == {"d": ""}
        assert lock.requirements == {"a": ">=1"}
        assert Lock.parse(lock.to_json()) == lock


class TestRefusal:
    def test_names_who_needs_what(self) -> None:
        catalogue = [release("a", "1", b="<2"), release("c", "1", b=">=2"), release("b", "1"), release("b", "2")]
        with pytest.raises(Unresolvable) as caught:
            resolve({"a": "", "c": ""}, *catalogue)
        assert str(caught.value) == (
            "Because a 1 needs b <2 and c 1 needs b >=2, a 1 and c 1 cannot be used together."
            " And because the request needs a and c, the request cannot be met."
        )

    def test_of_an_unknown_module(self) -> None:
        with pytest.raises(Unresolvable, match=r"a 1 needs z \(there is no z\), the request cannot be met"):
            resolve({"a": ""}, release("a", "1", z=""))

    def test_of_a_request_that_nothing_satisfies(self) -> None:
        catalogue = [release("a", f"{number}") for number in range(12)]
        with pytest.raises(Unresolvable, match=r"The request needs a >=20 .there is only 11, 10, 9.* and older ones"):
            resolve({"a": ">=20"}, *catalogue)

    def test_of_a_pre_release_says_that_it_is_one(self) -> None:
        with pytest.raises(Unresolvable, match=r"2rc1 \(pre-release\)"):
            resolve({"a": ">1"}, release("a", "2rc1"))

    def test_of_a_circle_names_it(self) -> None:
        catalogue = [release("a", "1", b=""), release("b", "1", c=""), release("c", "1", a="")]
        with pytest.raises(Unresolvable) as caught:
            resolve({"b": ""}, *catalogue)
        circle = str(caught.value).partition("a circle is not allowed (")[2].partition(")")[0].split(", ")
        assert sorted(circle) == ["a needs b", "b needs c", "c needs a"]

    def test_a_circle_is_gone_around_where_an_older_version_has_none(self) -> None:
        catalogue = [release("a", "2", b=""), release("b", "2", a=""), release("b", "1"), release("a", "1")]
        assert resolve({"a": ""}, *catalogue) == {"b": "1", "a": "2"}

    @pytest.mark.parametrize(
        ("requirements", "field"),
        [
            ({}, "requirements"),
            ({"a b": ""}, "name"),
            ({"a": "new"}, "requirements.a"),
            ({"a": "", "A": ""}, "requirements"),
        ],
    )
    def test_of_what_cannot_be_read(self, requirements: dict[str, str], field: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            resolve(requirements, release("a", "1"))
        assert caught.value.faults[0].field == field


def fancy(name: str, version: str, **fields: Any) -> Release:
    return of(Manifest(name=name, version=version, entry_point="file", **fields))


class TestFeatures:
    CATALOGUE = (
        fancy("a", "2", features={"fast": {"b": ">=2"}}),
        fancy("a", "1", features={"fast": {"b": "<2"}}),
        release("b", "1"),
        release("b", "2"),
    )

    def test_bring_what_they_need_only_where_they_are_asked_for(self) -> None:
        assert resolve({"a": ""}, *self.CATALOGUE) == {"a": "2"}
        assert resolve({"a[fast]": ""}, *self.CATALOGUE) == {"b": "2", "a": "2"}
        assert resolve({"a[fast]": "", "b": "<2"}, *self.CATALOGUE) == {"b": "1", "a": "1"}

    def test_are_in_the_lock(self) -> None:
        lock = DependencyResolver().resolve({"c": ""}, [*self.CATALOGUE, fancy("c", "1", requires={"a[fast]": ">=2"})])
        assert lock.module("a").features == ("fast",)
        assert lock.module("a").requires == {"b": ">=2"}
        assert lock.module("c").requires == {"a": ">=2"}

    def test_one_that_nobody_has_is_refused(self) -> None:
        with pytest.raises(Unresolvable, match=r"needs a\[slow\] \(there is no a\[slow\]\)"):
            resolve({"a[slow]": ""}, *self.CATALOGUE)

    def test_a_circle_through_a_feature_is_one(self) -> None:
        catalogue = [fancy("a", "1", features={"fast": {"b": ""}}), release("b", "1", a="")]
        assert resolve({"b": ""}, *catalogue) == {"a": "1", "b": "1"}
        with pytest.raises(Unresolvable, match=r"a\[fast\] needs b, b needs a"):
            resolve({"a[fast]": ""}, *catalogue)

    def test_of_a_pre_release_is_that_pre_release(self) -> None:
        catalogue = [fancy("a", "3rc1", features={"fast": {}}), *self.CATALOGUE]
        assert resolve({"a[fast]": ">=3rc1"}, *catalogue) == {"a": "3rc1"}


class TestInterfaces:
    CATALOGUE = (
        fancy("user", "1", interfaces={"embedder": ">=1,<2"}),
        fancy("small", "5", provides={"embedder": "1.1"}),
        fancy("large", "3", provides={"embedder": "1.0"}),
        fancy("huge", "1", provides={"embedder": "2.0"}),
    )

    def test_some_module_that_provides_it_is_chosen_and_loaded_before(self) -> None:
        lock = DependencyResolver().resolve({"user": ""}, self.CATALOGUE)
        assert [(module.name, module.version) for module in lock.modules] == [("small", "5"), ("user", "1")]
        assert lock.module("user").requires == {"small": ""}

    def test_the_one_that_is_asked_for_or_there_already_comes_first(self) -> None:
        assert resolve({"user": "", "large": ""}, *self.CATALOGUE) == {"large": "3", "user": "1"}
        assert resolve({"user": ""}, *self.CATALOGUE, prefer={"large": "3"}) == {"large": "3", "user": "1"}

    def test_in_the_wrong_version_it_will_not_do(self) -> None:
        with pytest.raises(Unresolvable, match=r"there is only 2.0 of huge 1"):
            resolve({"user": ""}, self.CATALOGUE[0], self.CATALOGUE[3])
        with pytest.raises(Unresolvable, match="there is no module that provides embedder"):
            resolve({"user": ""}, self.CATALOGUE[0])


class TestTarget:
    def test_versions_for_other_machines_are_left_out(self) -> None:
        catalogue = [fancy("a", "2", platform="sys_platform == 'win32'"), release("a", "1")]
        assert resolve({"a": ""}, *catalogue) == {"a": "1"}
        with pytest.raises(Unresolvable, match=r"2 \(not for linux: sys_platform == \"win32\"\)"):
            resolve({"a": ">=2"}, *catalogue)

    def test_versions_for_gpus_that_no_node_has_are_left_out(self) -> None:
        demand = Demand(gpus=1, accelerator_type="H100")
        catalogue = [fancy("a", "2", resources=demand), release("a", "1")]
        assert resolve({"a": ""}, *catalogue) == {"a": "2"}
        for types, chosen in ((frozenset(), "1"), (frozenset({"H100"}), "2")):
            lock = DependencyResolver(Target(accelerators=types)).resolve({"a": ""}, catalogue)
            assert lock.versions() == {"a": chosen}


# -- against every combination

constraints = st.sampled_from(["", ">=2", "<2", "==1", "==2", "!=2", ">=3", "<3"])


@st.composite
def catalogues(draw: st.DrawFn) -> list[Release]:
    """Up to four modules in up to three versions, which need only later ones: circles have tests of their own."""
    releases = []
    for place, name in enumerate(NAMES):
        for version in draw(st.sets(st.sampled_from("123"), max_size=3)):
            requires = (
                draw(st.dictionaries(st.sampled_from(NAMES[place + 1 :]), constraints)) if NAMES[place + 1 :] else {}
            )
            yanked = draw(st.integers(0, 9)) == 0
            releases.append(release(name, version, yanked=yanked, **requires))
    return releases


def all_answers(requirements: Mapping[str, str], catalogue: list[Release]) -> list[dict[str, Release]]:
    """Every choice of versions that satisfies the requirements, found by trying all of them."""
    by_name = {name: [release for release in catalogue if release.name == name] for name in NAMES}
    answers = []
    for combination in itertools.product(*([None, *by_name[name]] for name in NAMES)):
        chosen = {release.name: release for release in combination if release is not None}
        if is_answer(requirements, chosen):
            answers.append(chosen)
    return answers


def is_answer(requirements: Mapping[str, str], chosen: Mapping[str, Release]) -> bool:
    for release in chosen.values():
        pin = VersionConstraint.parse(requirements.get(release.name, "")).pinned
        if release.yanked and pin != release.version:
            return False
    needs = [requirements, *(release.manifest.requires for release in chosen.values())]
    return all(
        name in chosen and VersionConstraint.parse(constraint).satisfies(chosen[name].version)
        for some in needs
        for name, constraint in some.items()
    )


@settings(max_examples=400, deadline=None)
@given(catalogues(), st.dictionaries(st.sampled_from(NAMES), constraints, min_size=1))
def test_finds_an_answer_exactly_where_there_is_one(catalogue: list[Release], requirements: dict[str, str]) -> None:
    answers = all_answers(requirements, catalogue)
    try:
        lock = DependencyResolver().resolve(requirements, catalogue)
    except Unresolvable as error:
        assert not answers, f"there is {answers[0]}, but: {error}"
        assert str(error).endswith("the request cannot be met.")
        return
    by_key = {(release.name, release.manifest.version): release for release in catalogue}
    chosen = {module.name: by_key[module.name, module.version] for module in lock.modules}
    assert is_answer(requirements, chosen)
    needed = set(requirements).union(*(release.manifest.requires for release in chosen.values()))
    assert set(chosen) == needed
    seen: set[str] = set()
    for module in lock.modules:
        assert set(module.requires) <= seen
        seen.add(module.name)


@settings(max_examples=200, deadline=None)
@given(catalogues(), constraints)
def test_the_module_asked_for_is_as_new_as_any_answer_has_it(catalogue: list[Release], constraint: str) -> None:
    answers = all_answers({"a": constraint}, catalogue)
    if answers:
        newest = max(answer["a"].version for answer in answers)
        assert resolve({"a": constraint}, *catalogue)["a"] == str(newest)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef"), max_size=2)))
def test_loading_order_or_a_circle(graph: dict[str, set[str]]) -> None:
    try:
        order = loading_order(graph)
    except Unresolvable as error:
        circle = str(error).partition("in a circle: ")[2].split(" needs ")
        assert all(later in graph[earlier] for earlier, later in itertools.pairwise(circle))
        return
    assert set(order) >= set(graph)
    assert all(order.index(needed) < order.index(name) for name, needs in graph.items() for needed in needs)
