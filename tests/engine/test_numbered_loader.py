"""Batch N is the same whoever asks for it, and when."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from mmseg_ext.engine.numbered_loader import NumberedLoader, not_numbered
from mmseg_ext.engine.randomness import DrawnApart, seed_everything


class Noisy(Dataset):
    """Items with an index and random numbers of every generator; notes what was read."""

    def __init__(self, size: int = 10):
        self.size, self.read = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.read.append(index)
        return index, random.random(), np.random.rand(), torch.rand(()).item()


class OwnGenerator:
    """As Albumentations' compositions: numbers of a generator of its own."""

    def set_random_seed(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def __call__(self, index):
        return index, self.generator.random()


class WithPipeline(Noisy):
    class pipeline:
        class Albu:
            aug = OwnGenerator()

        transforms = (Albu(),)

    def __getitem__(self, index):
        return self.pipeline.transforms[0].aug(index)


def keep(items):
    return items


def loader(dataset=None, sampler=InfiniteSampler, workers: int = 0, **options) -> DataLoader:
    dataset = dataset or Noisy()
    if sampler is RandomSampler:
        options['shuffle'] = True
    else:
        options['sampler'] = sampler(dataset, seed=3)
    return DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=keep, **options)


def batches(start: int = 0, count: int = 9, seed: int = 1, **options) -> list:
    numbered = NumberedLoader(loader(**options), seed)
    stream = numbered.from_iteration(start)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize('sampler', [InfiniteSampler, DefaultSampler, RandomSampler])
@pytest.mark.parametrize('workers', [0, 2])
def test_a_stream_that_begins_later_goes_on_as_the_one_from_the_start(sampler, workers):
    whole = batches(sampler=sampler)
    assert batches(start=5, count=4, sampler=sampler, workers=workers) == whole[5:]
    values = [item[1] for batch in whole for item in batch]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize('sampler', [DefaultSampler, RandomSampler])
@pytest.mark.parametrize(('epoch', 'start'), [(0, 2), (1, 0), (2, 3)])
def test_an_epoch_from_its_middle_is_that_part_of_the_whole(sampler, epoch, start):
    whole = batches(count=12, sampler=sampler)
    numbered = NumberedLoader(loader(sampler=sampler), 1)
    assert list(numbered.of_epoch(epoch, start)) == whole[4 * epoch + start : 4 * (epoch + 1)]


def test_passes_one_after_the_other_are_the_stream_and_differ():
    numbered = NumberedLoader(loader(sampler=DefaultSampler), 1)
    passes = [list(numbered.of_epoch(epoch)) for epoch in range(3)]
    assert [batch for one in passes for batch in one] == batches(count=12, sampler=DefaultSampler)
    orders = [[item[0] for batch in one for item in batch] for one in passes]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1]


def test_nothing_before_the_start_is_read():
    dataset = Noisy()
    stream = NumberedLoader(loader(dataset), 1).from_iteration(1000)
    next(stream)
    assert len(dataset.read) == 3


def test_random_numbers_of_the_process_are_its_own():
    seed_everything(7)
    expected = batches(sampler=RandomSampler)
    seed_everything(8)
    for _ in range(5):
        random.random(), np.random.rand(), torch.rand(3)
    assert batches(sampler=RandomSampler) == expected
    assert batches(sampler=RandomSampler, seed=2) != expected


def test_a_transform_with_a_generator_of_its_own_is_seeded_by_the_place():
    whole = batches(dataset=WithPipeline())
    assert batches(start=4, count=5, dataset=WithPipeline(), workers=2) == whole[4:]
    assert len({item[1] for batch in whole for item in batch}) == 27


def test_the_samples_of_a_batch_are_those_that_the_loader_gave():
    places, samples = NumberedLoader(loader(), 1).samples(6)
    assert samples == batches()[6]
    assert [place.position for place in places] == [0, 1, 2]
    assert {place.iteration for place in places} == {6}


def test_the_wrapped_loader_is_what_others_see():
    inner = loader()
    numbered = NumberedLoader(inner, 1)
    assert numbered.dataset is inner.dataset
    assert numbered.sampler is inner.sampler
    assert len(numbered) == len(inner)


class Stream(IterableDataset):
    def __iter__(self):
        yield 1


class OwnLoader(DataLoader):
    pass


@pytest.mark.parametrize(
    ('other', 'reason'),
    [
        (DataLoader(Stream()), 'Stream is an IterableDataset'),
        (OwnLoader(Noisy()), 'OwnLoader is a loader of its own kind'),
        (DataLoader(Noisy(), batch_size=None), 'batch_size=None'),
    ],
)
def test_what_has_no_numbers_is_named(other, reason):
    assert reason in not_numbered(other)
    with pytest.raises(ValueError, match=reason):
        NumberedLoader(other, 1)


def test_a_sampler_without_a_batch_is_an_error_and_no_endless_loop():
    numbered = NumberedLoader(DataLoader(Noisy(2), batch_size=3, drop_last=True), 1)
    with pytest.raises(ValueError, match='gives no batch of the 2 samples; drop_last'):
        next(numbered.from_iteration(0))


def test_what_is_drawn_apart_leaves_the_generators_as_they_were():
    def draw():
        while True:
            yield random.random(), np.random.rand(), torch.rand(()).item()

    seed_everything(1)
    expected = [random.random(), np.random.rand(), torch.rand(()).item()]
    seed_everything(1)
    apart = DrawnApart(draw(), 5)
    first = [next(apart) for _ in range(3)]
    assert [random.random(), np.random.rand(), torch.rand(()).item()] == expected
    assert len(set(first)) == 3
    again = DrawnApart(draw(), 5)
    assert [next(again) for _ in range(3)] == first


def test_going_over_the_loader_is_one_pass_and_leaves_the_training_where_it_is():
    numbered = NumberedLoader(loader(sampler=DefaultSampler, workers=1, persistent_workers=True), 1)
    stream = numbered.from_iteration(0)
    first = next(stream)
    assert len(list(numbered)) == len(numbered) == 4
    assert [first, *(next(stream) for _ in range(8))] == batches(sampler=DefaultSampler)


def test_a_hook_that_restarts_the_loader_changes_the_data_from_the_next_epoch_on():
    inner = loader(sampler=DefaultSampler, workers=1, persistent_workers=True)
    numbered = NumberedLoader(inner, 1)
    assert {item[0] for batch in numbered.of_epoch(0) for item in batch} == set(range(10))
    inner.dataset.__class__ = Shifted
    # As detection projects switch their pipeline.
    numbered._DataLoader__initialized = False
    numbered._iterator = None
    assert {item[0] for batch in numbered.of_epoch(1) for item in batch} == set(range(100, 110))


class Shifted(Noisy):
    def __getitem__(self, index):
        return index + 100, *super().__getitem__(index)[1:]


class Inner(WithPipeline):
    class pipeline:
        class Apply:  # as mmcv's RandomApply: its transforms are an object that has some
            class transforms:
                class Albu:
                    aug = OwnGenerator()

                transforms = (Albu(),)

        transforms = (Apply(),)

    def __getitem__(self, index):
        return self.pipeline.transforms[0].transforms.transforms[0].aug(index)


def test_transforms_inside_of_transforms_are_seeded_too():
    whole = batches(dataset=Inner())
    assert batches(start=4, count=5, dataset=Inner()) == whole[4:]


def test_an_iterator_that_nobody_asks_takes_nothing_from_the_sampler():
    # mmengine 0.10.7's loop makes one in its constructor.
    numbered = NumberedLoader(loader(workers=1), 1)
    unused = iter(numbered)
    assert next(numbered.from_iteration(0)) == batches(count=1)[0]
    del unused
