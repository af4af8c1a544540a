"""Consumer groups, one scenario at a time, with a clock that the test moves."""

from __future__ import annotations

from itertools import count

from streams.embedded.groups import Groups, GroupState, JoinAnswer, JoinRequest, SyncAnswer
from streams.embedded.settings import LogSettings

SETTINGS = LogSettings(group_initial_delay_ms=100, session_timeout_ms_min=1_000)


class Fixture:
    """One group and the answers that came out of it."""

    def __init__(self, generation: int = 0) -> None:
        self.now = 0
        self.generations: list[int] = []
        ids = count(1)
        known = {"g": (generation, "consumer")} if generation else None
        self.groups = Groups(
            SETTINGS,
            lambda _, generation, __: self.generations.append(generation),
            known,
            lambda: str(next(ids)),
        )
        self.answers: dict[object, JoinAnswer | SyncAnswer] = {}

    def take(self, replies) -> None:  # type: ignore[no-untyped-def]
        for reply in replies:
            assert reply.token not in self.answers, "answered twice"
            self.answers[reply.token] = reply.answer

    def join(
        self,
        token: str,
        member_id: str = "",
        *,
        instance: str | None = None,
        protocols: tuple[tuple[str, bytes], ...] = (("range", b"m"),),
        known_id: bool = False,
        session_ms: int = 10_000,
    ) -> JoinAnswer | None:
        request = JoinRequest(
            "g", member_id, instance, "client", "host", "consumer", protocols, session_ms, 30_000, known_id
        )
        self.take(self.groups.join(request, token, self.now))
        answer = self.answers.get(token)
        assert answer is None or isinstance(answer, JoinAnswer)
        return answer

    def sync(
        self, token: str, joined: JoinAnswer, assignments: dict[str, bytes] | None = None
    ) -> SyncAnswer | None:
        self.take(
            self.groups.sync(
                "g", joined.member_id, None, joined.generation, assignments or {}, token, self.now
            )
        )
        answer = self.answers.get(token)
        assert answer is None or isinstance(answer, SyncAnswer)
        return answer

    def wait(self, ms: int) -> None:
        self.now += ms
        self.take(self.groups.tick(self.now))

    def joined(self, token: str) -> JoinAnswer:
        answer = self.answers[token]
        assert isinstance(answer, JoinAnswer)
        return answer

    def beat(self, joined: JoinAnswer) -> str:
        return self.groups.heartbeat("g", joined.member_id, None, joined.generation, self.now)

    def stable_pair(self) -> tuple[JoinAnswer, JoinAnswer]:
        self.join("a")
        self.join("b")
        self.wait(200)
        a, b = self.joined("a"), self.joined("b")
        self.sync("b-sync", b)
        self.sync("a-sync", a, {a.member_id: b"A", b.member_id: b"B"})
        return a, b

    @property
    def state(self) -> GroupState:
        return self.groups.groups["g"].state


def test_members_that_start_together_share_the_first_generation() -> None:
    f = Fixture()
    a, b = f.stable_pair()
    assert (a.generation, b.generation) == (1, 1)
    assert a.leader == b.leader == a.member_id
    assert [m.member_id for m in a.members] == [a.member_id, b.member_id]
    assert b.members == ()
    assert f.answers["b-sync"] == SyncAnswer("none", "consumer", "range", b"B")
    assert f.state is GroupState.STABLE
    assert f.generations == [1]
    assert f.beat(a) == f.beat(b) == "none"


def test_a_new_member_must_come_back_with_its_id() -> None:
    f = Fixture()
    answer = f.join("first", known_id=True)
    assert answer is not None
    assert answer.error == "member_id_required"
    assert f.join("second", answer.member_id, known_id=True) is None
    f.wait(100)
    assert f.joined("second").member_id == answer.member_id


def test_an_id_that_is_never_used_does_not_hold_the_group() -> None:
    f = Fixture()
    f.stable_pair()
    f.join("ghost", known_id=True)
    a = f.joined("a")
    f.join("a2", a.member_id)
    f.join("b2", f.joined("b").member_id)
    assert "a2" not in f.answers
    f.wait(10_000)
    assert f.joined("a2").generation == 2


def test_a_join_makes_the_others_join_again() -> None:
    f = Fixture()
    a, b = f.stable_pair()
    f.join("c")
    assert f.beat(a) == "rebalance_in_progress"
    f.join("a2", a.member_id)
    assert "c" not in f.answers
    f.join("b2", b.member_id)
    assert {f.joined(t).generation for t in ("a2", "b2", "c")} == {2}
    assert f.beat(a) == "illegal_generation"
    assert f.beat(f.joined("a2")) == "none"


def test_a_member_that_does_not_join_in_time_is_dropped() -> None:
    f = Fixture()
    a, b = f.stable_pair()
    f.join("c", session_ms=60_000)
    f.join("a2", a.member_id)
    for _ in range(7):
        f.now += 5_000
        f.groups.heartbeat("g", b.member_id, None, 1, f.now)
        f.take(f.groups.tick(f.now))
    assert f.joined("c").generation == 2
    assert len(f.groups.groups["g"].members) == 2
    assert f.beat(b) == "unknown_member_id"


def test_a_silent_member_is_dropped_after_its_session() -> None:
    f = Fixture()
    a, b = f.stable_pair()
    f.now += 9_000
    f.beat(a)
    f.wait(2_000)
    assert f.state is GroupState.PREPARING
    assert f.beat(b) == "unknown_member_id"
    f.join("a2", a.member_id)
    assert f.joined("a2").generation == 2


def test_the_last_one_to_leave_empties_the_group() -> None:
    f = Fixture()
    a, b = f.stable_pair()
    assert f.groups.leave("g", a.member_id, None, f.now)[0] == "none"
    assert f.groups.leave("g", b.member_id, None, f.now)[0] == "none"
    assert f.state is GroupState.EMPTY
    assert f.groups.leave("g", b.member_id, None, f.now)[0] == "unknown_member_id"
    assert f.groups.delete("g") == "none"


def test_a_lost_join_answer_is_given_again() -> None:
    f = Fixture()
    f.join("a")
    f.wait(100)
    a = f.joined("a")
    assert f.join("again", a.member_id) == a


def test_a_leader_that_joins_again_starts_a_rebalance() -> None:
    f = Fixture()
    a, _ = f.stable_pair()
    assert f.join("a2", a.member_id) is None
    assert f.state is GroupState.PREPARING


def test_a_follower_that_joins_again_does_not() -> None:
    f = Fixture()
    _, b = f.stable_pair()
    assert f.join("b2", b.member_id) == b
    assert f.join("b3", b.member_id, protocols=(("range", b"other"),)) is None
    assert f.state is GroupState.PREPARING


def test_followers_wait_for_the_leader_and_a_rebalance_frees_them() -> None:
    f = Fixture()
    f.join("a")
    f.join("b")
    f.wait(200)
    f.sync("b-sync", f.joined("b"))
    assert "b-sync" not in f.answers
    f.join("c")
    assert f.answers["b-sync"] == SyncAnswer("rebalance_in_progress")


def test_a_leader_that_never_syncs_is_dropped() -> None:
    f = Fixture()
    f.join("a", session_ms=60_000)
    f.join("b", session_ms=60_000)
    f.wait(200)
    b = f.joined("b")
    f.sync("b-sync", b)
    f.wait(30_000)
    assert f.answers["b-sync"] == SyncAnswer("rebalance_in_progress")
    f.join("b2", b.member_id)
    assert f.joined("b2").leader == b.member_id


def test_a_static_member_returns_with_a_new_id_in_the_same_generation() -> None:
    f = Fixture()
    f.join("a", instance="one")
    f.join("b", instance="two")
    f.wait(200)
    a, b = f.joined("a"), f.joined("b")
    f.sync("a-sync", a, {a.member_id: b"A", b.member_id: b"B"})
    back = f.join("back", instance="two")
    assert back is not None
    assert (back.generation, back.leader) == (1, a.member_id)
    assert back.member_id != b.member_id
    assert f.sync("back-sync", back) == SyncAnswer("none", "consumer", "range", b"B")
    assert f.groups.heartbeat("g", b.member_id, "two", 1, f.now) == "fenced_instance_id"
    assert f.state is GroupState.STABLE


def test_a_static_leader_that_returns_is_not_asked_to_assign() -> None:
    f = Fixture()
    f.join("a", instance="one")
    f.wait(100)
    a = f.joined("a")
    f.sync("a-sync", a, {a.member_id: b"A"})
    back = f.join("back", instance="one")
    assert back is not None
    assert back.leader != back.member_id
    assert f.sync("back-sync", back) == SyncAnswer("none", "consumer", "range", b"A")


def test_an_old_id_of_a_static_member_is_fenced() -> None:
    f = Fixture()
    f.join("a", instance="one")
    f.wait(100)
    answer = f.join("old", "one-77", instance="one")
    assert answer is not None
    assert answer.error == "fenced_instance_id"


def test_a_group_agrees_on_a_protocol_that_all_have() -> None:
    f = Fixture()
    f.join("a", protocols=(("sticky", b""), ("range", b"")))
    f.join("b", protocols=(("range", b""),))
    f.wait(200)
    assert f.joined("a").protocol == "range"
    answer = f.join("c", protocols=(("roundrobin", b""),))
    assert answer is not None
    assert answer.error == "inconsistent_group_protocol"


def test_generations_go_on_after_a_restart() -> None:
    f = Fixture(generation=41)
    f.join("a")
    f.wait(100)
    assert f.joined("a").generation == 42


def test_refusals() -> None:
    f = Fixture()
    short = f.join("short", session_ms=10)
    assert short is not None
    assert short.error == "invalid_session_timeout"
    unknown = f.join("unknown", "nobody")
    assert unknown is not None
    assert unknown.error == "unknown_member_id"
    assert f.groups.heartbeat("g", "x", None, 1, 0) == "unknown_member_id"
    assert f.groups.delete("g") == "group_id_not_found"


def test_who_may_commit_offsets() -> None:
    f = Fixture()
    assert f.groups.check_commit("g", "", None, -1, 0) == "none"
    a, _ = f.stable_pair()
    assert f.groups.check_commit("g", a.member_id, None, 1, f.now) == "none"
    assert f.groups.check_commit("g", a.member_id, None, 0, f.now) == "illegal_generation"
    assert f.groups.check_commit("g", "", None, -1, f.now) == "unknown_member_id"
    f.join("c")
    assert f.groups.check_commit("g", a.member_id, None, 1, f.now) == "none"
