import pytest
import torch

from minilab.pacbayes.data import Dataset
from minilab.pacbayes.phenomena.task import Task, altered, rows


def test_altered_labels_are_a_nested_share_of_uniform_ones():
    y = torch.zeros(100_000, dtype=torch.long)
    rows = altered(y, (0, 0.3, 1), 4, torch.Generator().manual_seed(0))
    assert torch.equal(rows[0], y)
    assert (rows != 0).double().mean(dim=1)[1:].tolist() == pytest.approx([0.3 * 3 / 4, 3 / 4], abs=0.01)
    assert rows[2].bincount() / len(y) == pytest.approx([1 / 4] * 4, abs=0.01)
    assert torch.equal(rows[2][rows[1] != 0], rows[1][rows[1] != 0])


def test_pictures_become_rows_of_shares_and_numbers_stay():
    bytes_, y = torch.tensor([[[0, 51], [255, 102]]], dtype=torch.uint8), torch.tensor([1])
    task = rows(Dataset("bytes", bytes_, y, bytes_.float(), y, ("0", "1")))
    torch.testing.assert_close(task.x, torch.tensor([[0, 0.2, 1, 0.4]]))
    assert task.test_x.tolist() == [[0, 51, 255, 102]]


def test_a_pair_of_classes_becomes_zero_and_one():
    x = torch.arange(6.0)[:, None]
    task = Task(x, torch.tensor([0, 3, 5, 3, 5, 1]), x[:2], torch.tensor([5, 3])).pair(5, 3)
    assert task.x[:, 0].tolist() == [1, 2, 3, 4] and task.y.tolist() == [1, 0, 1, 0]
    assert task.test_y.tolist() == [0, 1] and task.classes == 2


def test_bad_input_says_what_to_give():
    x, y = torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)
    task = Task(x, y, x, y)
    with pytest.raises(ValueError, match="3 training samples"):
        task.first(4)
    with pytest.raises(ValueError, match="from 0 to 1"):
        altered(task.y, (1.5,), 2, torch.Generator())
