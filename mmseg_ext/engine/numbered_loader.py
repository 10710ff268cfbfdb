"""A data loader whose batches have numbers: batch N is the same whoever asks for it, and when."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .randomness import ORDER, SAMPLE, DrawnApart, seed_sample


class Place(NamedTuple):
    """Which sample of the data set comes where: in iteration ``iteration``, from 0, at ``position`` of its batch.

    Positions count over all processes, so that processes that share a batch augment as one that has it alone.
    """

    index: Any
    iteration: int
    position: int


class NumberedLoader:
    """A ``DataLoader`` that gives batch N as a function of its seed and of N.

    The loader that it wraps says what there is: data set, sampler, workers, collation; this one numbers what the
    sampler chooses and seeds each sample's augmentation by its place. So the number of workers, and where a run was
    resumed, make no difference, and going on at batch N loads nothing before it: only the sampler's choices are passed
    over. All attributes but these are the wrapped loader's.

    Args:
        loader: what to read from.
        seed: the run's seed.

    Raises:
        ValueError: the loader is of a kind whose batches can't be numbered; see :func:`not_numbered`.
    """

    def __init__(self, loader: DataLoader, seed: int):
        reason = not_numbered(loader)
        if reason:
            raise ValueError(reason)
        self.__dict__.update(loader=loader, seed=seed, _epoch=-1, _places=_Places(), _is_stale=False)
        self.__dict__.update(zip(('_rank', '_world_size'), get_dist_info(), strict=True))
        self.__dict__.update(_passes=self._begin_passes(), _reader=self._build_reader(self._places))

    def __getattr__(self, name: str) -> Any:
        if name == 'loader':  # not there yet: while it is unpickled or copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            self.__dict__[name] = value
            return
        # What hooks do to change the data from an epoch on: the reader has to follow.
        setattr(self.loader, name, value)
        self.__dict__['_is_stale'] = True

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        """Yield the batches of one pass, whatever the training is at; nothing begins before the first is asked for."""
        places = _Places()
        places.now = next(self._begin_passes())
        yield from self._build_reader(places, persistent_workers=False)

    def from_iteration(self, start: int) -> Iterator:
        """Yield the batches from number ``start`` on, without end: one pass of the sampler after the other."""
        self._places.now = self._endless(start)
        yield from self._reader

    def of_epoch(self, epoch: int, start: int = 0) -> Iterator:
        """Yield the batches of a pass, from its batch ``start`` on. Passes come in rising order."""
        while self._epoch < epoch:
            places = next(self._passes)
            self._epoch += 1
            if self._epoch < epoch:
                # A sampler may go on where its last pass has ended.
                places.skip(None)
        places.skip(start)
        if self._is_stale:
            self._reader, self._is_stale = self._build_reader(self._places), False
        self._places.now = places
        yield from self._reader

    def samples(self, iteration: int) -> tuple[list[Place], list[Any]]:
        """Return the places and the samples of a batch, before they are collated; read in this process."""
        chosen = next(self._endless(iteration))
        return chosen, [self._reader.dataset[place] for place in chosen]

    def _endless(self, start: int) -> Iterator[list[Place]]:
        for places in self._begin_passes():
            start -= places.skip(start)
            yield from places

    def _begin_passes(self) -> Iterator['_Pass']:
        iteration = epoch = 0
        while True:
            for sampler in (self.loader.sampler, getattr(self.loader.batch_sampler, 'sampler', None)):
                if hasattr(sampler, 'set_epoch'):
                    sampler.set_epoch(epoch)
            batches = DrawnApart(self.loader.batch_sampler, self.seed, ORDER, epoch)
            places = _Pass(batches, iteration, self._rank, self._world_size)
            yield places
            if places.iteration == iteration:
                raise ValueError(
                    f'{type(self.loader.sampler).__name__} gives no batch of the {len(self.loader.dataset)} '
                    'samples; drop_last with a batch larger than the data set?'
                )
            iteration = places.iteration
            epoch += 1

    def _build_reader(self, places: '_Places', **changes: Any) -> DataLoader:
        loader = self.loader
        names = ['num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context']
        names += ['generator', 'persistent_workers']
        names += ['prefetch_factor', 'in_order'] if loader.num_workers else []
        options = {name: getattr(loader, name) for name in names if hasattr(loader, name)}
        if loader.pin_memory_device:
            options['pin_memory_device'] = loader.pin_memory_device
        return DataLoader(_Seeded(loader.dataset, self.seed), batch_sampler=places, **(options | changes))


def not_numbered(loader: Any) -> str:
    """Return why the batches of a loader can't be numbered; '' where they can."""
    if type(loader) is not DataLoader:
        return f'{type(loader).__name__} is a loader of its own kind'
    if isinstance(loader.dataset, IterableDataset):
        return f'{type(loader.dataset).__name__} is an IterableDataset, which chooses its samples itself'
    if loader.batch_sampler is None:
        return 'batch_size=None leaves the batches to the data set'
    return ''


class _Pass:
    """The batches of one pass of a sampler, as places; ``iteration`` is the number of the next."""

    def __init__(self, batches: DrawnApart, iteration: int, rank: int, world_size: int):
        self._batches, self.iteration, self._rank, self._world_size = batches, iteration, rank, world_size

    def __iter__(self) -> Iterator[list[Place]]:
        for batch in self._batches:
            yield [
                Place(index, self.iteration, position * self._world_size + self._rank)
                for position, index in enumerate(batch)
            ]
            self.iteration += 1

    def skip(self, count: int | None) -> int:
        """Pass over so many batches, None: all; return how many there were."""
        skipped = self._batches.skip(count)
        self.iteration += skipped
        return skipped


class _Places:
    """The batch sampler of the reader: what ``now`` yields."""

    now: Iterable[list[Place]]

    def __iter__(self) -> Iterator[list[Place]]:
        return iter(self.now)


class _Seeded(Dataset):
    """A data set whose items are asked for by their place, which seeds their augmentation."""

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed
        self._own = list(_with_own_numbers(dataset))

    def __getitem__(self, place: Place) -> Any:
        key = (self.seed, SAMPLE, place.iteration, place.position)
        seed_sample(*key)
        for transform in self._own:
            transform.set_random_seed(hash(key) % 2**32)
        return self.dataset[place.index]

    def __len__(self) -> int:
        return len(self.dataset)


def _with_own_numbers(dataset: Any) -> Iterator[Any]:
    """Yield what draws from a generator of its own in the pipelines of a data set: Albumentations' compositions."""
    inner = [getattr(dataset, name, None) for name in ('dataset', '_dataset')]
    inner += getattr(dataset, 'datasets', None) or ()
    for item in inner:
        if item is not None:
            yield from _with_own_numbers(item)
    yield from _in_transforms(getattr(dataset, 'pipeline', None))


def _in_transforms(transform: Any) -> Iterator[Any]:
    if isinstance(transform, (list, tuple)):
        for item in transform:
            yield from _in_transforms(item)
    elif hasattr(transform, 'set_random_seed'):
        yield transform
    elif transform is not None:
        yield from _in_transforms(getattr(transform, 'aug', None))
        yield from _in_transforms(getattr(transform, 'transforms', None))
