# CamVid in the SegNet layout: 367 training and 101 validation images of 360x480, 11 classes.
#
# A crop of 240x320 has features of 15x20 at output stride 16, 30x40 at 8. Atrous rates must stay well below that: a tap
# beyond the map's edge sees padding alone in training, and its weights stay as they were drawn until a whole image uses
# them. Hence (6, 12, 18) at stride 8 and (3, 6, 9) at 16, where the papers, with crops of 513, have (6, 12, 18) at 16.
dataset_type = 'CamVidDataset'
data_root = 'data/camvid/'
crop_size = (240, 320)
image_scale = (480, 360)
# 1 / log(1.1 + share of the training pixels): sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian,
# bicyclist. With more of it, [5.9, 4.4, 26.6, 3.3, 15.8, 9.1, 25.6, 25.9, 13.4, 32.8, 38.8], in both heads, a run of
# 500 iterations (schedules/camvid.py, learning rate 1e-3) had 47.3 mIoU and 83.7% accuracy instead of 42.2 and 85.5%.
class_weight = [4.11, 3.4, 9.56, 2.8, 7.3, 5.45, 9.4, 9.44, 6.7, 9.87, 10.2]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=image_scale, ratio_range=(0.6, 1.6), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    # Behind Resize: the truth keeps its size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25, 1.5)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='val', seg_map_path='valannot'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
