"""CamVid's labels: the 32 classes and colours of the download, and their grouping into the usual 11. Needs numpy alone.

Brostow, Fauqueur, Cipolla: Semantic object classes in video, Pattern Recognition Letters 30(2), 2009. The grouping
into 11 is the one of Brostow et al., ECCV 2008, that SegNet (Badrinarayanan et al., TPAMI 2017) trains on, in SegNet's
order.
"""

import numpy as np

# The download's label_colors.txt: name -> RGB, in its order. An index label of 32 classes counts in this order.
COLOURS = {
    'Animal': (64, 128, 64),
    'Archway': (192, 0, 128),
    'Bicyclist': (0, 128, 192),
    'Bridge': (0, 128, 64),
    'Building': (128, 0, 0),
    'Car': (64, 0, 128),
    'CartLuggagePram': (64, 0, 192),
    'Child': (192, 128, 64),
    'Column_Pole': (192, 192, 128),
    'Fence': (64, 64, 128),
    'LaneMkgsDriv': (128, 0, 192),
    'LaneMkgsNonDriv': (192, 0, 64),
    'Misc_Text': (128, 128, 64),
    'MotorcycleScooter': (192, 0, 192),
    'OtherMoving': (128, 64, 64),
    'ParkingBlock': (64, 192, 128),
    'Pedestrian': (64, 64, 0),
    'Road': (128, 64, 128),
    'RoadShoulder': (128, 128, 192),
    'Sidewalk': (0, 0, 192),
    'SignSymbol': (192, 128, 128),
    'Sky': (128, 128, 128),
    'SUVPickupTruck': (64, 128, 192),
    'TrafficCone': (0, 0, 64),
    'TrafficLight': (0, 64, 64),
    'Train': (192, 64, 128),
    'Tree': (128, 128, 0),
    'Truck_Bus': (192, 128, 192),
    'Tunnel': (64, 0, 64),
    'VegetationMisc': (192, 192, 0),
    'Void': (0, 0, 0),
    'Wall': (64, 192, 0),
}

# Class of the 11 -> its members. The first member lends the class its colour; Void belongs to none.
GROUPS = {
    'sky': ('Sky',),
    'building': ('Building', 'Archway', 'Bridge', 'Tunnel', 'Wall'),
    'pole': ('Column_Pole', 'TrafficCone'),
    'road': ('Road', 'LaneMkgsDriv', 'LaneMkgsNonDriv'),
    'pavement': ('Sidewalk', 'ParkingBlock', 'RoadShoulder'),
    'tree': ('Tree', 'VegetationMisc'),
    'sign symbol': ('SignSymbol', 'Misc_Text', 'TrafficLight'),
    'fence': ('Fence',),
    'car': ('Car', 'OtherMoving', 'SUVPickupTruck', 'Train', 'Truck_Bus'),
    'pedestrian': ('Pedestrian', 'Animal', 'CartLuggagePram', 'Child'),
    'bicyclist': ('Bicyclist', 'MotorcycleScooter'),
}

UNLABELLED_11 = len(GROUPS)


def _pack(rgb: np.ndarray) -> np.ndarray:
    """Pack colours (..., 3) into one integer each, (...)."""
    rgb = rgb.astype(np.uint32)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _index_of_name(num_classes: int) -> dict[str, int]:
    if num_classes == 32:
        return {name: index for index, name in enumerate(COLOURS)}
    if num_classes == 11:
        grouped = {name: index for index, members in enumerate(GROUPS.values()) for name in members}
        return {name: grouped.get(name, UNLABELLED_11) for name in COLOURS}
    raise ValueError(f'num_classes must be 11 or 32, got {num_classes!r}')


def colours_to_indices(rgb: np.ndarray, num_classes: int) -> tuple[np.ndarray, dict[tuple[int, int, int], int]]:
    """Turn a colour label (H, W, 3) uint8 in RGB order into an index label (H, W) uint8.

    Void becomes 11 beside the 11 classes, and is itself one (30) of the 32. Returned with the label: the pixel count of
    each colour that is not in the table; such pixels count as void.

    Raises:
        ValueError: the label is not (H, W, 3) uint8, or ``num_classes`` is neither 11 nor 32.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f'a colour label must be (H, W, 3) uint8, got shape {rgb.shape} and dtype {rgb.dtype}')
    index_of_name = _index_of_name(num_classes)
    known = _pack(np.array(list(COLOURS.values())))
    order = np.argsort(known)
    packed = _pack(rgb)
    position = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
    indices = np.array([index_of_name[name] for name in COLOURS], dtype=np.uint8)[order][position]
    stray = known[order][position] != packed
    indices[stray] = index_of_name['Void']
    colours, counts = np.unique(packed[stray], return_counts=True)
    strays = {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255): int(n) for c, n in zip(colours, counts, strict=True)}
    return indices, strays
