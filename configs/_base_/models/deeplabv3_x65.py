# DeepLabV3 on Aligned Xception-65: the encoder of DeepLabV3+ by itself (arXiv:1802.02611, section 4.5).
_base_ = './deeplabv3plus_x65.py'
model = dict(decode_head=dict(type='ASPPHead'))
