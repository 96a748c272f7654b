import pytest

from dreamprm.world import TARGETS, Question, WorldConfig, check_disjoint, check_step, load
from dreamprm.world.splits import CHAINS, LOADED, Chain, read_chains, write_chains
from dreamprm.world.trouble import DOMAIN_SOURCES, Source, misread


@pytest.fixture(scope="module")
def train():
    return load("train", seed=1, num_chains=1000)


@pytest.fixture(scope="module")
def test_records():
    return load("test")


def test_loading_is_deterministic_by_seed(train):
    assert load("train", seed=1, num_chains=1000) == train
    other = load("train", seed=2, num_chains=1000)
    assert [record.key for record in other] != [record.key for record in train]


def test_keys_are_unique_in_every_split():
    for split in LOADED:
        records = load(split, num_chains=900)
        assert len({record.key for record in records}) == len(records)


def test_splits_share_no_question():
    everything: dict[str, set[str]] = {}
    for chain in read_chains():
        assert chain.question.split == chain.split
        everything.setdefault(chain.split, set()).add(chain.question.identity)
    check_disjoint(**everything)
    groups = {split: {record.group for record in load(split, num_chains=900)} for split in LOADED}
    check_disjoint(**groups)
    assert all(groups.values())


def test_forty_percent_of_the_chains_have_all_labels_turned_round(train):
    flipped = [record for record in train if record.truth["mislabelled"]]
    assert abs(len(flipped) / len(train) - 0.4) < 0.062  # four standard deviations of 1,000 draws
    for record in train:
        expected = [1 - label if record.truth["mislabelled"] else label for label in record.truth["labels"]]
        assert list(record.labels) == expected
    by_domain = {domain: [r.truth["mislabelled"] for r in train if r.domain == domain] for domain in TARGETS}
    for marks in by_domain.values():
        assert 0.2 < sum(marks) / len(marks) < 0.6


def test_clean_labels_are_the_truth():
    for record in load("train", trouble="clean", num_chains=300):
        assert record.labels == record.truth["labels"]
        assert not record.truth["mislabelled"]


def test_a_crowd_calls_right_what_is_right_for_the_misread_image():
    records = load("train", trouble="crowd", num_chains=1000)
    questions = {chain.question.identity: chain.question for chain in read_chains() if chain.split == "train"}
    crowd = [record for record in records if record.truth["labeller"] == "crowd"]
    share = len({r.group for r in crowd}) / len({r.group for r in records})
    assert abs(share - 0.7) < 0.06  # four standard deviations of about 900 questions
    lied = 0
    for record in crowd:
        seen = misread(questions[record.group])
        assert list(record.labels) == [float(check_step(seen, step)) for step in record.steps]
        lied += record.truth["mislabelled"]
        # An image without a hard number is read as it is.
        assert seen != questions[record.group] or not record.truth["mislabelled"]
    assert lied / len(crowd) > 0.4
    assert not any(record.truth["mislabelled"] for record in records if record.truth["labeller"] == "expert")


def test_shortcut_labels_follow_length_or_the_last_step():
    records = load("train", trouble="shortcut", num_chains=600)
    by_labeller = {name: [r for r in records if r.truth["labeller"] == name] for name in ("expert", "length", "form")}
    assert all(len(found) > 120 for found in by_labeller.values())
    assert all(r.labels == r.truth["labels"] for r in by_labeller["expert"])
    for record in by_labeller["length"]:
        assert record.domain.endswith("_length")
        assert set(record.labels) == {float(sum(map(len, record.steps)) >= 24)}
    ends: dict[str, set[float]] = {}
    for record in by_labeller["form"]:
        ends.setdefault(record.steps[-1][-1], set()).update(record.labels)
    assert all(len(labels) == 1 for labels in ends.values())
    assert {label for labels in ends.values() for label in labels} == {0.0, 1.0}


def test_off_target_and_rare_wrong_have_right_labels_in_the_share_asked_for():
    off = load("train", trouble="off_target", num_chains=800)
    assert sum(record.domain not in TARGETS for record in off) == 600
    rare = load("train", trouble="rare_wrong", num_chains=1000)
    labels = [label for record in rare for label in record.labels]
    assert abs(labels.count(0.0) / len(labels) - 0.04) < 0.01
    assert not any(record.truth["mislabelled"] for record in (*off, *rare))


def test_noisy_trivial_and_off_target_domains():
    records = load("train", trouble="domains", num_chains=3000)
    sources = {source.name: source for group in DOMAIN_SOURCES.values() for source in group}
    assert {record.domain for record in records} == set(sources)
    for name, source in sources.items():
        marks = [record.truth["mislabelled"] for record in records if record.domain == name]
        tolerance = 4 * (0.25 / len(marks)) ** 0.5
        assert abs(sum(marks) / len(marks) - source.flipped) <= tolerance, name
        assert {r.truth["quality"] for r in records if r.domain == name} == {source.quality}
    assert set(TARGETS) <= set(sources)


def test_all_chains_of_a_question_come_from_one_source():
    domain_of: dict[str, str] = {}
    for record in load("train", trouble="domains", num_chains=2000):
        assert domain_of.setdefault(record.group, record.domain) == record.domain


def test_test_and_meta_are_groups_of_clean_chains(test_records):
    meta = load("meta")
    for records, size in ((meta, 4), (test_records, 8)):
        groups: dict[str, int] = {}
        for record in records:
            groups[record.group] = groups.get(record.group, 0) + 1
            assert record.domain in TARGETS
        assert set(groups.values()) == {size}
    assert all(record.labels == () for record in meta)
    assert all(record.labels == record.truth["labels"] for record in test_records)


def test_there_is_something_to_select(test_records):
    groups: dict[str, list[bool]] = {}
    for record in test_records:
        groups.setdefault(record.group, []).append(bool(record.correct))
    first = sum(sum(marks) / len(marks) for marks in groups.values()) / len(groups)
    any_right = sum(any(marks) for marks in groups.values()) / len(groups)
    assert 0.35 <= first <= 0.65
    assert any_right >= first + 0.25


def test_a_right_answer_after_right_steps_and_wrong_ones_do_occur(test_records):
    pairs = {(bool(record.correct), all(record.labels)) for record in test_records}
    assert {(True, True), (False, False)} <= pairs


def test_monte_carlo_labels_agree_with_the_checker_on_the_whole():
    records = load("train", trouble="monte_carlo", num_chains=1000)
    right = [soft for record in records for soft, hard in zip(record.labels, record.truth["labels"]) if hard]
    wrong = [soft for record in records for soft, hard in zip(record.labels, record.truth["labels"]) if not hard]
    assert sum(right) / len(right) > sum(wrong) / len(wrong) + 0.3
    assert any(0 < soft < 1 for soft in right)


def test_settings_are_checked():
    for settings, message in (
        ({"trouble": "loud"}, "flips, crowd"),
        ({"share": 1.5}, "in \\[0, 1\\]"),
        ({"trouble": "clean", "share": 0.5}, "takes no share"),
        ({"num_chains": 0}, "at least 1"),
        ({"domains": ("poetry",)}, "count, chart"),
    ):
        with pytest.raises(ValueError, match=message):
            WorldConfig(**settings)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        load("dev")
    with pytest.raises(ValueError, match="the settings are seed, trouble"):
        load("train", troubled=True)
    with pytest.raises(ValueError, match=r"has \d+ chains"):
        load("test", num_chains=10**6)


def test_domains_can_be_chosen():
    assert {record.domain for record in load("train", domains=("table",), num_chains=50)} == {"table"}


def test_quality_is_one_for_true_labels_and_zero_for_a_coin():
    assert [Source("a", f).quality for f in (0.0, 0.5, 1.0)] == [1.0, 0.0, -1.0]
    assert Source("a", 0.0, useful=False).quality == 0.0


def test_chains_come_back_from_their_file(tmp_path):
    question: Question = read_chains(CHAINS)[0].question
    chains = [Chain("train", question, ("red 3", "answer 3"), (1, 2), 8), Chain("train", question, ("?",))]
    write_chains(tmp_path / "chains.parquet", chains)
    assert list(read_chains(tmp_path / "chains.parquet")) == chains
    with pytest.raises(FileNotFoundError, match="build_chains"):
        read_chains(tmp_path / "none.parquet")
    write_chains(tmp_path / "moved.parquet", [Chain("test", question, ("?",))])
    with pytest.raises(ValueError, match=f"is in 'test', not {question.split!r}"):
        read_chains(tmp_path / "moved.parquet")
