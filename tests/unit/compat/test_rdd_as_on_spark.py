"""One set of programs on Spark and on Dask, with what both must come to, partition by partition where Spark says so."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain
from operator import add

import pytest

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "the", "fox", "naïve", "日本", "😀"]
PAIRS = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("a", 6)]


def parts(rdd):
    return rdd.glom().collect()


def bags(rdd):
    """Partitions in order, records in any: what a shuffle defines."""
    return [Counter(records) for records in parts(rdd)]


def lists(rdd):
    """Groups as sorted lists, by key."""
    return {key: sorted(values) for key, values in rdd.collect()}


def test_narrow_transformations_keep_records_in_their_partitions(sc):
    rdd = sc.parallelize(range(10), 4)
    assert rdd.getNumPartitions() == 4
    assert parts(rdd) == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    pairs = rdd.map(lambda x: x + 1).filter(lambda x: x % 3).flatMap(lambda x: [x] * (x % 3)).keyBy(lambda x: -x)
    assert parts(pairs.mapValues(str)) == [
        [(-1, "1"), (-2, "2"), (-2, "2")],
        [(-4, "4"), (-5, "5"), (-5, "5")],
        [(-7, "7")],
        [(-8, "8"), (-8, "8"), (-10, "10")],
    ]
    assert pairs.keys().sum() == -pairs.values().sum() == -52
    assert pairs.flatMapValues(range).count() == 52
    assert rdd.mapPartitions(lambda records: [sum(records)]).collect() == [1, 9, 11, 24]
    firsts = rdd.mapPartitionsWithIndex(lambda i, records: [(i, min(records))])
    assert firsts.collect() == [(0, 0), (1, 2), (2, 5), (3, 7)]
    assert parts(sc.parallelize([7], 3)) == [[], [], [7]]
    assert parts(sc.range(2, 12, 3, 2)) == [[2, 5], [8, 11]]


def test_pairing_numbering_and_joining_of_partitions(sc):
    rdd = sc.parallelize("abcdefgh", 4).filter(lambda letter: letter not in "cd")
    assert parts(rdd.zipWithIndex()) == [[("a", 0), ("b", 1)], [], [("e", 2), ("f", 3)], [("g", 4), ("h", 5)]]
    assert rdd.zipWithUniqueId().values().collect() == [0, 4, 2, 6, 3, 7]
    assert parts(rdd.zip(rdd.map(ord))) == [
        [("a", 97), ("b", 98)],
        [],
        [("e", 101), ("f", 102)],
        [("g", 103), ("h", 104)],
    ]
    assert parts(rdd.union(sc.parallelize([1], 1))) == [["a", "b"], [], ["e", "f"], ["g", "h"], [1]]
    assert parts(sc.union([rdd, rdd.map(ord), sc.parallelize([1], 1)]))[3:] == [
        ["g", "h"],
        [97, 98],
        [],
        [101, 102],
        [103, 104],
        [1],
    ]
    assert rdd.coalesce(9).getNumPartitions() == 4
    assert rdd.coalesce(1).collect() == list("abefgh")
    dealt = parts(sc.parallelize(range(1000), 2).repartition(4))
    assert sorted(chain(*dealt)) == list(range(1000))
    assert all(len(records) > 150 for records in dealt)
    assert sorted(sc.parallelize([1, 2], 2).cartesian(sc.parallelize("xy", 2)).collect()) == [
        (1, "x"), (1, "y"), (2, "x"), (2, "y"),
    ]  # fmt: skip


def test_keys_come_into_the_partitions_where_spark_has_them(sc):
    keys = [*WORDS, "", b"bytes", None, (1, "x"), ("nested", (None, 2.5)), 17, -1, -2, 2**70, 0.5, 1e300, True]
    placed = sc.parallelize([(key, 1) for key in keys], 3).partitionBy(7)
    place = {key: number for number, records in enumerate(parts(placed)) for key, _ in records}
    wanted = [3, 0, 0, 0, 5, 6, 6, 2, 5, 2, 4, 0, 4, 0, 5, 6, 3, 5, 5, 1, 1, 5, 1]
    assert [place[key] for key in dict.fromkeys(keys)] == wanted
    chosen = sc.parallelize([(number, None) for number in range(9)], 2).partitionBy(3, lambda key: key // 3)
    assert [sorted(records) for records in parts(chosen.keys())] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_values_of_a_key(sc):
    pairs = sc.parallelize(PAIRS, 3)
    reduced = bags(pairs.reduceByKey(add))
    assert sum(reduced, Counter()) == Counter([("a", 10), ("b", 7), ("c", 4)])
    assert len(reduced) == 3
    assert bags(pairs.foldByKey(0, add)) == reduced
    assert bags(pairs.combineByKey(lambda v: v, add, add)) == reduced
    assert pairs.reduceByKey(add, 5).getNumPartitions() == 5
    gathered = pairs.aggregateByKey([], lambda values, v: [*values, v], add)
    assert lists(gathered) == lists(pairs.groupByKey()) == {"a": [1, 3, 6], "b": [2, 5], "c": [4]}
    assert lists(sc.parallelize(range(7), 2).groupBy(lambda x: x % 3)) == {0: [0, 3, 6], 1: [1, 4], 2: [2, 5]}
    counted = sc.parallelize(WORDS, 4).map(lambda word: (word, 1)).reduceByKey(add)
    assert dict(counted.collect()) == Counter(WORDS)
    assert pairs.countByKey() == {"a": 3, "b": 2, "c": 1}
    assert sc.parallelize(WORDS, 4).countByValue() == Counter(WORDS)
    assert pairs.lookup("b") == [2, 5]


def test_joins_and_sets(sc):
    left = sc.parallelize([("a", 1), ("b", 2), ("a", 3), ("d", 4)], 2)
    right = sc.parallelize([("a", "x"), ("c", "y"), ("a", "z"), ("d", None)], 3)
    inner = [("a", (1, "x")), ("a", (1, "z")), ("a", (3, "x")), ("a", (3, "z")), ("d", (4, None))]
    joined = left.join(right)
    assert joined.getNumPartitions() == 5
    assert sum(bags(joined), Counter()) == Counter(inner)
    assert Counter(left.leftOuterJoin(right).collect()) == Counter([*inner, ("b", (2, None))])
    assert Counter(left.rightOuterJoin(right, 2).collect()) == Counter([*inner, ("c", (None, "y"))])
    assert Counter(left.fullOuterJoin(right).collect()) == Counter([*inner, ("b", (2, None)), ("c", (None, "y"))])
    groups = {key: [sorted(map(str, side)) for side in sides] for key, sides in left.cogroup(right).collect()}
    assert groups == {"a": [["1", "3"], ["x", "z"]], "b": [["2"], []], "c": [[], ["y"]], "d": [["4"], ["None"]]}
    assert left.subtractByKey(right).collect() == [("b", 2)]
    numbers, others = sc.parallelize([1, 2, 2, 3, 3, 4], 2), sc.parallelize([3, 4, 4, 5], 2)
    assert [
        sorted(found.collect())
        for found in (numbers.distinct(), numbers.intersection(others), numbers.subtract(others))
    ] == [
        [1, 2, 3, 4],
        [3, 4],
        [1, 2, 2],
    ]


def test_sorting_cuts_at_the_same_keys(sc):
    rdd = sc.parallelize([37, 5, 12, 99, 1, 64, 5, 80, 23, 41, 5, 77], 4)
    ranges = [[1, 5, 5, 5, 12], [23, 37, 41, 64], [77, 80, 99]]
    assert parts(rdd.sortBy(lambda x: x, numPartitions=3)) == ranges
    assert parts(rdd.sortBy(lambda x: x, False, 3)) == [records[::-1] for records in ranges[::-1]]
    pairs = rdd.map(lambda x: (x % 10, x))
    assert [key for key, _ in pairs.sortByKey().collect()] == sorted(x % 10 for x in rdd.collect())
    assert rdd.sortBy(lambda x: -x, numPartitions=1).collect() == sorted(rdd.collect(), reverse=True)
    assert pairs.sortByKey(keyfunc=lambda key: -key).keys().first() == 9


def test_actions(sc):
    rdd = sc.parallelize([3.0, 1.0, 2.0, 5.0, 4.0], 3)
    assert (rdd.count(), rdd.sum(), rdd.min(), rdd.max(), rdd.first()) == (5, 15.0, 1.0, 5.0, 3.0)
    assert (rdd.mean(), rdd.variance(), rdd.sampleVariance()) == pytest.approx((3.0, 2.0, 2.5))
    assert (rdd.stdev(), rdd.sampleStdev(), rdd.stats().max()) == pytest.approx((math.sqrt(2), math.sqrt(2.5), 5.0))
    assert (rdd.take(2), rdd.take(9), rdd.take(0)) == ([3.0, 1.0], [3.0, 1.0, 2.0, 5.0, 4.0], [])
    assert (rdd.top(2), rdd.takeOrdered(2), rdd.top(1, key=lambda x: -x)) == ([5.0, 4.0], [1.0, 2.0], [1.0])
    assert rdd.max(key=lambda x: abs(x - 2)) == 5.0
    assert rdd.reduce(lambda a, b: a - b) == 3.0 - (1.0 - 2.0) - (5.0 - 4.0)
    assert rdd.fold(10, add) == 55.0  # ten for each partition, and for what they come to
    assert rdd.aggregate((0, 0), lambda a, x: (a[0] + x, a[1] + 1), lambda a, b: (a[0] + b[0], a[1] + b[1])) == (
        15.0,
        5,
    )
    many = sc.parallelize(range(100), 9)
    assert many.treeReduce(add, 3) == many.treeAggregate(0, add, add) == 4950
    assert list(rdd.toLocalIterator()) == rdd.collect()
    assert sc.parallelize(PAIRS, 3).collectAsMap() == {"a": 6, "b": 5, "c": 4}
    assert (rdd.isEmpty(), sc.emptyRDD().isEmpty(), sc.parallelize([], 3).isEmpty()) == (False, True, True)


def test_nothing_in_an_rdd(sc):
    for rdd in (sc.emptyRDD(), sc.parallelize([], 2)):
        assert (rdd.collect(), rdd.count(), rdd.sum(), rdd.take(3), rdd.fold(0, add)) == ([], 0, 0, [], 0)
        assert rdd.map(lambda x: (x, x)).reduceByKey(add, 2).collect() == []
        for action in (
            rdd.first,
            rdd.min,
            rdd.max,
            lambda rdd=rdd: rdd.reduce(add),
            lambda rdd=rdd: rdd.treeReduce(add),
        ):
            with pytest.raises(ValueError, match=r"(?i)empty"):
                action()


def test_samples(sc):
    rdd = sc.parallelize(range(2000), 4)
    sample = rdd.sample(False, 0.3, 7)
    found = sample.collect()
    assert sample.collect() == found == sorted(set(found))
    assert 480 < len(found) < 720
    often = Counter(rdd.sample(True, 2.0, 7).collect())
    assert 3600 < often.total() < 4400
    assert max(often.values()) > 3
    assert (len(rdd.takeSample(False, 5, 1)), len(rdd.takeSample(True, 2500, 1))) == (5, 2500)
    assert sorted(sc.parallelize(range(5), 2).takeSample(False, 9)) == list(range(5))
    pieces = [piece.collect() for piece in rdd.randomSplit([1.0, 3.0], 11)]
    assert sorted(chain(*pieces)) == list(range(2000))
    assert 400 < len(pieces[0]) < 600


def test_what_is_persisted_is_computed_once_and_effects_come_with_actions(sc):
    computed = sc.accumulator(0)

    def count(record):
        computed.add(1)
        return record

    rdd = sc.parallelize(range(8), 2).map(count)
    assert computed.value == 0
    assert (rdd.count(), rdd.count(), computed.value) == (8, 8, 16)
    assert not rdd.getStorageLevel().useMemory
    assert rdd.cache() is rdd
    assert rdd.getStorageLevel().useMemory
    assert (rdd.take(1), computed.value) == ([0], 20)  # the first partition
    child = rdd.map(lambda x: (x % 2, x)).reduceByKey(add)
    assert (dict(child.collect()), rdd.sum(), computed.value) == ({0: 12, 1: 16}, 28, 24)
    rdd.unpersist()
    assert (rdd.count(), computed.value) == (8, 32)
    rdd.foreach(lambda x: computed.add(10))
    rdd.foreachPartition(lambda records: computed.add(1000 * len(list(records))))
    assert computed.value == 32 + 8 + 80 + 8 + 8000


def test_broadcast_values_and_kept_records_are_the_programs_own(sc):
    table = sc.broadcast({"a": [1, 2], "b": [3]})
    rdd = sc.parallelize("abca", 2).map(lambda key: table.value.get(key, []))
    assert rdd.collect() == [[1, 2], [3], [], [1, 2]]
    assert table.value["b"] == [3]
    table.unpersist()
    kept = sc.parallelize([[1], [2]], 2).map(list).cache()
    assert kept.map(lambda record: record.append(9) or record).collect() == [[1, 9], [2, 9]]
    assert kept.collect() == [[1], [2]]
    kept.unpersist()


def test_text_files(sc, tmp_path):
    lines = [f"line {number} " + "x" * (number % 50) for number in range(300)]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text("\n".join(lines[200:]) + "\n")
    (folder / "a.txt").write_bytes("\r\n".join(lines[:200]).encode())
    (folder / "_hidden").write_text("no\n")
    (folder / "empty").write_text("")
    assert Counter(sc.textFile(str(folder), 7).collect()) == Counter(lines)  # Spark's order is the file system's
    for name, wanted in ((folder / "*.txt", 3), (f"{folder}/a.txt,{folder}/b.txt", 1)):
        assert sc.textFile(str(name), wanted).collect() == lines
    cut = parts(sc.textFile(str(folder / "b.txt"), 4))
    assert [len(found) for found in cut] == [34, 16, 34, 16]
    whole = {name.rpartition("/")[2]: text for name, text in sc.wholeTextFiles(str(folder)).collect()}
    assert whole == {"a.txt": "\r\n".join(lines[:200]), "b.txt": "\n".join(lines[200:]) + "\n", "empty": ""}
    names = sc.binaryFiles(str(folder)).filter(lambda file: len(file[1]) > 3).keys().collect()
    assert sorted(names) == [f"file:{folder}/a.txt", f"file:{folder}/b.txt"]


def test_saved_text(sc, tmp_path):
    target = tmp_path / "saved"
    rdd = sc.parallelize([1, "zwei ü", (3, None)], 2)
    rdd.saveAsTextFile(str(target))
    assert (target / "part-00000").read_text() == "1\n"
    assert (target / "part-00001").read_text() == "zwei ü\n(3, None)\n"
    assert sorted(path.name for path in target.iterdir() if path.name[0] != ".") == [
        "_SUCCESS",
        "part-00000",
        "part-00001",
    ]
    assert sc.textFile(str(target)).collect() == ["1", "zwei ü", "(3, None)"]
    with pytest.raises(Exception, match="exists"):
        rdd.saveAsTextFile(str(target))


def test_names_and_numbers(sc):
    rdd = sc.parallelize([1], 1)
    assert rdd.name() is None
    assert rdd.setName("mine").name() == "mine"
    assert rdd.map(str).id() != rdd.id()
    assert rdd.context is sc
    assert sc.defaultParallelism == 2
    assert sc.parallelize(range(4)).getNumPartitions() == 2
    assert sc.emptyRDD().getNumPartitions() == 0


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda sc, rdd: rdd.zip(sc.parallelize(range(4), 3)), id="zip: number of partitions"),
        pytest.param(lambda sc, rdd: rdd.zip(sc.parallelize(range(5), 2)).collect(), id="zip: lengths"),
        pytest.param(lambda sc, rdd: rdd.sample(False, -0.5).collect(), id="sample"),
        pytest.param(lambda sc, rdd: rdd.takeSample(False, -1), id="takeSample"),
        pytest.param(lambda sc, rdd: rdd.repartition(0).collect(), id="repartition"),
        pytest.param(lambda sc, rdd: rdd.coalesce(-1).collect(), id="coalesce"),
        pytest.param(lambda sc, rdd: rdd.treeReduce(add, 0), id="treeReduce"),
        pytest.param(lambda sc, rdd: rdd.map(lambda x: rdd.count()).collect(), id="an RDD in a function"),
        pytest.param(lambda sc, rdd: rdd.reduceByKey(add).collect(), id="no pairs"),
        pytest.param(lambda sc, rdd: rdd.map(lambda x: ([x], x)).groupByKey().collect(), id="unhashable keys"),
        pytest.param(lambda sc, rdd: rdd.map(lambda x: next(iter(()))).collect(), id="StopIteration"),
        pytest.param(lambda sc, rdd: rdd.randomSplit([]), id="randomSplit: no weights"),
        pytest.param(lambda sc, rdd: sc.textFile("/no/such/file").collect(), id="textFile"),
        pytest.param(lambda sc, rdd: sc.parallelize([1], 0).collect(), id="parallelize: no slices"),
        pytest.param(lambda sc, rdd: sc.union([]), id="union of nothing"),
        pytest.param(lambda sc, rdd: sc.accumulator("text"), id="accumulator of text"),
    ],
)
def test_what_spark_refuses_is_refused_with_a_sentence(sc, use):
    rdd = sc.parallelize(range(4), 2)
    with pytest.raises(Exception, match=r"\w+ \w+ \w+"):
        use(sc, rdd)
