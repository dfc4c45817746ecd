"""What is alike goes together, in bounded waiting."""

import torch

from basicsr_ext.common.batching import in_groups, shapes_of


def test_groups_hold_what_is_alike_in_order():
    groups = list(in_groups(range(10), lambda k: k % 3, 2))
    assert groups == [[0, 3], [1, 4], [2, 5], [6, 9], [7], [8]]
    assert list(in_groups("abc", lambda _: 0, 1)) == [["a"], ["b"], ["c"]] and list(in_groups([], id, 4)) == []


def test_no_more_than_three_groups_wait():
    taken = []

    def things():
        for k in range(40):
            taken.append(k)
            yield k

    done = 0
    for group in in_groups(things(), lambda k: k if k % 10 else 0, 3):
        done += len(group)
        assert len(taken) - done <= 9
    assert done == 40


def test_shapes_are_those_of_tensors():
    item = {"lq": torch.ones(3, 4, 5), "gt": torch.ones(3, 8, 10), "lq_path": "a.png"}
    assert shapes_of(item) == (("gt", (3, 8, 10)), ("lq", (3, 4, 5)))
    assert shapes_of(item, ("lq", "mask", "lq_path")) == (("lq", (3, 4, 5)),)
