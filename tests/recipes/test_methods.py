"""Methods by name: their places, constants and connectors on two pairs of networks, as in their authors' scripts.

Sources, by the names that the expectations carry: RepDistiller (HobbitLong), mdistiller (megvii-research),
AB_distillation (bhheo), overhaul-distillation (clovaai), image_classification_sota (hunto, of DIST_KD), ICKD
(ADLab-AutoDrive), MGD, cls_KD (yzd-v), KD_SRRL (jingyang2017), SimKD (DefangChen), ReviewKD (dvlab-research),
Factor-Transfer-pytorch (Jangho-Kim), Weighted-Soft-Label-Distillation, SDD-CVPR2024 (shicaiwei123), CAT-KD
(GzyAftermath), TTM (zkxufo), CTKD (zhengli97), NormKD (gizi1), VkD (roymiles), WKD, logit-standardization-KD.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from torch import nn

from limbeck import adapters
from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.recipes.methods import METHODS, Places
from limbeck.runs.written_out import setting_of

CIFAR, IMAGENET = ("resnet32x4", "resnet8x4"), ("torchvision:resnet34", "torchvision:resnet18")
SHAPES = {CIFAR: (3, 32, 32), IMAGENET: (3, 64, 64)}
"""64×64 in place of 224×224, so that the last map has 512·2·2 elements."""


@cache
def places(pair: tuple[str, str]) -> Places:
    teacher, student = (build(name, input_shape=SHAPES[pair], classes=100) for name in pair)
    return Places(student, teacher, SHAPES[pair], 50_000, names=(pair[1], pair[0]))


@cache
def terms(method: str, pair: tuple[str, str] = CIFAR) -> list[dict[str, Any]]:
    setting = setting_of(method)
    return setting.terms(places(pair)) or setting.stages[0].terms(places(pair))


def taps(method: str, pair: tuple[str, str], side: str) -> list[Any]:
    return [term[side] for term in terms(method, pair)]


LAYERS = ["layer1", "layer2", "layer3", "layer4"]
STAGES = ["stage1", "stage2", "stage3"]
TAPS = {
    # RepDistiller: feat[hint_layer = 2], the second stage.
    "fitnet": (["stage2"], ["layer2"]),
    # RepDistiller: feat[1:-1], all stages.
    "at": (STAGES, LAYERS),
    "nst": (STAGES, LAYERS),
    "vid": (STAGES, LAYERS),
    # RepDistiller: feat[:-1], from the stem on, one flow to the next.
    "fsp": (
        [["stage1:in", "stage1"], ["stage1", "stage2"], ["stage2", "stage3"]],
        [["layer1:in", "layer1"], ["layer1", "layer2"], ["layer2", "layer3"], ["layer3", "layer4"]],
    ),
    # RepDistiller and ICKD: feat[-2], the last map; KD_SRRL and MGD: the same.
    **dict.fromkeys(("sp", "ickd", "mgd", "srrl", "ft"), (["stage3"], ["layer4"])),
    # RepDistiller: feat[-1], the pooled vector.
    # SDD-CVPR2024 and CAT-KD: what the last stage gives, in front of the pooling; WKD: HINT_LAYER -1.
    **dict.fromkeys(("sd-kd", "sd-dkd", "cat-kd", "wkd-f"), (["stage3"], ["layer4"])),
    **dict.fromkeys(("rkd", "pkt", "crd"), (["classifier:in"], ["fc:in"])),
}


@pytest.mark.parametrize("method", TAPS)
@pytest.mark.parametrize("pair", [CIFAR, IMAGENET], ids=["cifar", "imagenet"])
def test_taps(method: str, pair: tuple[str, str]) -> None:
    expected = TAPS[method][pair is IMAGENET]
    assert taps(method, pair, "student") == expected
    assert taps(method, pair, "teacher") == expected


@pytest.mark.parametrize("pair", [CIFAR, IMAGENET], ids=["cifar", "imagenet"])
def test_simkd_compares_what_the_teachers_classifier_reads(pair: tuple[str, str]) -> None:
    """SimKD: feat_t[-2], and feat_s[-2] behind the projector; the network that ships has the teacher's classifier."""
    assert taps("simkd", pair, "student") == ["projector"]
    assert taps("simkd", pair, "teacher") == TAPS["sp"][pair is IMAGENET]
    setting = setting_of("simkd")
    assert setting.network is not None
    assert setting.network(places(pair)).options == {
        "reused_classifier": {"channels": 512 if pair is IMAGENET else 256}
    }


@pytest.mark.parametrize("method", ["ab", "ofd"])
def test_taps_before_the_relus(method: str) -> None:
    assert taps(method, CIFAR, "student") == [f"stage{number}.0.relu:in" for number in (1, 2, 3)]
    assert taps(method, CIFAR, "teacher") == [f"stage{number}.4.relu:in" for number in (1, 2, 3)]
    # In torchvision's blocks the sum, in place on the output of bn2; the last block of each layer.
    assert taps(method, IMAGENET, "student") == [f"layer{number}.1.add" for number in (1, 2, 3, 4)]
    blocks = enumerate((2, 3, 5, 2), start=1)
    assert taps(method, IMAGENET, "teacher") == [f"layer{number}.{block}.add" for number, block in blocks]


def test_review_reads_the_teacher_before_its_relus_and_the_pooled_vectors() -> None:
    (term,) = terms("review")
    assert term["student"] == [*STAGES, "classifier:in"]  # mdistiller: STU_PREACT false
    assert term["teacher"] == [*(f"stage{number}.4.relu:in" for number in (1, 2, 3)), "classifier:in"]
    (term,) = terms("review:imagenet", IMAGENET)
    assert term["student"] == [*(f"layer{number}.1.add" for number in (1, 2, 3, 4)), "fc:in"]  # STU_PREACT true
    assert (term["weight"], term["ramp"]) == (1.0, 1)


CONSTANTS = {
    # method: (weight of the labels, weight of the first term, its options)
    "kd": (0.1, 0.9, {"temperature": 4}),  # RepDistiller: -r 0.1 -a 0.9, kd_T 4
    "kd:imagenet": (0.5, 0.5, {"temperature": 1}),  # mdistiller: imagenet/r34_r18/kd.yaml
    "dkd": (1, 1, {"temperature": 4, "nontarget_weight": 8, "ramp": 20}),  # mdistiller: cfg.py, res32x4_res8x4.yaml
    "dkd:imagenet": (1, 1, {"temperature": 1, "nontarget_weight": 0.5, "ramp": 1}),  # mdistiller: r34_r18/dkd.yaml
    "dist": (1, 2, {"temperature": 4}),  # image_classification_sota: distill/dist_cifar.yaml, kd_loss_weight 2, dist_t4
    "dist:imagenet": (1, 2, {"temperature": 1}),  # the same: distill/resnet_dist.yaml, kd_loss_weight 2, tau 1
    "ls": (0.1, 9, {"temperature": 2, "standardize": True}),  # README: --base-temp 2 --kd-weight 9
    "nkd": (1, 1, {"temperature": 3, "nontarget_weight": 3.5}),  # cls_KD: cifar100/res34_distill_res18_cifar.py
    "nkd:imagenet": (1, 1, {"temperature": 1, "nontarget_weight": 1.5}),  # cls_KD: res34_distill_res18_img.py
    "wsld": (1, 2.25, {"temperature": 4}),  # cls_KD: cifar100/res34_distill_res18_cifar.py
    "wsld:imagenet": (1, 2.5, {"temperature": 2}),  # Weighted-Soft-Label-Distillation: knowledge_distiller.py
    "ls-mlkd": (0.2, 9, {"standardize": True}),  # README: --base-temp 2 --kd-weight 9; cfg.py: CE_WEIGHT 0.1, two views
    "ttm": (1, 45, {"temperature": 1, "teacher_temperature": 10, "scale": False}),  # README: --ttm_l 0.1 -r 1 -b 45
    "wttm": (1, 4, {"temperature": 5}),  # README: --ttm_l 0.2 -a 4
    "ctkd": (0.1, 0.9, {"least": 1, "span": 20, "epochs": 10}),  # run_cifar_distill.sh: --t_start 1 --t_end 20
    "normkd": (0.1, 0.9, {"temperature": 2}),  # cfg.py
    "normkd:imagenet": (0.5, 0.5, {"temperature": 1}),  # configs/imagenet/r34_r18/normkd.yaml
    "sd-kd": (0.1, 0.9, {"temperature": 4, "scales": [1, 2]}),  # cfg.py; teacher_resnet32x4.sh: --M [1,2]
    "sd-dkd": (1, 1, {"base": "dkd", "temperature": 4, "ramp": 20}),  # cfg.py
    "sd-dkd:imagenet": (1, 1, {"temperature": 1, "nontarget_weight": 0.5, "ramp": 1}),  # r34_r18/sdd_dkd.yaml
    "cat-kd": (1, 15, {"resolution": 2, "normalize": False}),  # configs/cifar100/CAT_KD/res32x4_res8x4.yaml
    "cat-kd:imagenet": (1, 0.5, {"resolution": 4, "normalize": False}),  # configs/imagenet/CAT-KD/r34_r18.yaml
    "vkd": (1, 1, {}),  # main_distributed.py: --alpha 1 --gamma 1
    "wkd-f": (1, 0.006, {"mean_weight": 4, "adapter": "regressor"}),  # wkd_f/res32x4_res8x4.yaml: conv1x1, ratio 4
    "fitnet": (1, 100, {"adapter": "regressor"}),  # RepDistiller: -b 100, ConvReg
    "at": (1, 1000, {}),  # RepDistiller: run_cifar_distill.sh, as the next seven
    "nst": (1, 50, {}),
    "vid": (1, 1, {}),
    "sp": (1, 3000, {}),
    "rkd": (1, 1, {}),
    "pkt": (1, 30000, {}),
    "crd": (1, 0.8, {"samples": 50_000}),
    "fsp": (1, 50, {}),
    "ft": (1, 500, {}),  # Factor-Transfer-pytorch: --beta 500
    "ickd": (1, 2.5, {"adapter": "conv1x1_bn"}),  # ICKD: -b 2.5, Embed with batch norm
    "srrl": (1, 1, {"adapter": "conv1x1_bn_relu"}),  # KD_SRRL: --weight 1, transfer_conv
    "simkd": (0, 1, {}),  # SimKD: scripts/run_distill.sh, -c 0 -d 0 -b 1
    "review": (1, 5, {"ramp": 20}),  # ReviewKD: script/reviewKD.sh, --kd-warm-up 20
    "cwd": (1, 50, {"temperature": 4}),  # the paper: 50 on features; TorchDistiller: channel kl 3 4, on logits, T 4
    "pearson": (1, 6, {}),  # mmrazor: pkd_fpn_frcnn_r101_frcnn_r50_2x_coco.py, PKDLoss(loss_weight=6)
}


@pytest.mark.parametrize("method", CONSTANTS)
def test_constants(method: str) -> None:
    task_weight, weight, options = CONSTANTS[method]
    first = terms(method)[0]
    assert setting_of(method).task_weight == task_weight
    assert first["weight"] == weight
    assert {key: first[key] for key in options} == options


def test_dkds_beta_is_that_of_its_pair() -> None:
    """mdistiller, configs/cifar100/dkd: BETA of each file, 8 where none is given."""
    expected = {
        ("resnet56", "resnet20"): 2, ("resnet110", "resnet32"): 2, ("vgg13", "vgg8"): 6, ("vgg13", "mobilenet_v2"): 6,
        ("wrn_40_2", "wrn_16_2"): 6, ("wrn_40_2", "wrn_40_1"): 6, ("resnet32x4", "shufflenet_v1"): 8,
        ("resnet50", "mobilenet_v2"): 8,
    }  # fmt: skip
    for (teacher, student), beta in expected.items():
        pair = Places(nn.Identity(), nn.Identity(), (3, 32, 32), 1, names=(student, teacher))
        (term,) = METHODS["dkd"].default.terms(pair)
        assert term["nontarget_weight"] == beta


def test_both_classifiers_are_given_the_students_as_it_is() -> None:
    pair = places(CIFAR)
    (term,) = terms("sd-kd")
    live = term["student_classifier"].make(pair.student)
    assert live is pair.student.get_submodule("classifier")
    trained = term["teacher_classifier"].make(pair.teacher)
    assert trained is not pair.teacher.get_submodule("classifier")
    assert not any(weight.requires_grad for weight in trained.parameters())


@pytest.mark.parametrize(
    ("method", "pair", "weights"),
    [
        # AB_distillation: sum / batch · 3 / 1000, halved for each earlier stage; maps of 64·32², 128·16², 256·8².
        ("ab", CIFAR, [3e-3 * n for n in (64 * 32**2 / 4, 128 * 16**2 / 2, 256 * 8**2)]),
        ("ab", IMAGENET, [3e-3 * n for n in (64 * 16**2 / 8, 128 * 8**2 / 4, 256 * 4**2 / 2, 512 * 2**2)]),
        # overhaul-distillation: sum / batch / 1000 for CIFAR-100, / 10000 for ImageNet.
        ("ofd", CIFAR, [1e-3 * n for n in (64 * 32**2 / 4, 128 * 16**2 / 2, 256 * 8**2)]),
        ("ofd:imagenet", IMAGENET, [1e-4 * n for n in (64 * 16**2 / 8, 128 * 8**2 / 4, 256 * 4**2 / 2, 512 * 2**2)]),
        # MGD: alpha_mgd of the sum / batch, 0.00007 for ImageNet; cls_KD: 0.0012 for CIFAR-100.
        ("mgd:imagenet", CIFAR, [7e-5 * 256 * 8**2]),
        ("mgd:imagenet", IMAGENET, [7e-5 * 512 * 2**2]),
        ("mgd", CIFAR, [1.2e-3 * 256 * 8**2]),
    ],
)
def test_weights_of_published_sums(method: str, pair: tuple[str, str], weights: list[float]) -> None:
    assert [term["weight"] for term in terms(method, pair)] == pytest.approx(weights)


def test_initialisations_are_stages() -> None:
    """RepDistiller: 30 epochs of init before 240 with the labels alone (-a 0, loss_kd 0)."""
    for method in ("ab", "fsp"):
        setting = setting_of(method)
        assert [stage.epochs for stage in setting.stages] == [30]
        assert (setting.epochs, setting.task_weight, setting.terms(places(CIFAR))) == (240, 1.0, [])
        joint = setting_of(f"{method}:joint")
        assert joint.terms(places(CIFAR)) == setting.stages[0].terms(places(CIFAR))
        assert not joint.stages


def test_the_paraphraser_is_trained_first() -> None:
    """Factor-Transfer-pytorch: train_Paraphraser.py runs epochs 0 to 5, train_student.py 0 to 163; beta 500."""
    setting = setting_of("ft")
    assert [stage.epochs for stage in setting.stages] == [6]
    (first,) = setting.stages[0].terms(places(CIFAR))
    assert first == {"loss": "Paraphraser", "weight": 1.0, "student": [], "teacher": "stage3"}
    assert setting.epochs == 164


def layers(kind: str, student: tuple[int, ...], teacher: tuple[int, ...]) -> list[str]:
    made = adapters.make(kind, student, teacher)
    return [repr(layer) for layer in (made if isinstance(made, nn.Sequential) else [made])]


SAME, WIDER = ((2, 4, 8, 8), (2, 4, 8, 8)), ((2, 4, 8, 8), (2, 6, 8, 8))
PLAIN = "Conv2d({}, {}, kernel_size=(1, 1), stride=(1, 1), bias=False)"


@pytest.mark.parametrize(
    ("kind", "shapes", "expected"),
    [
        # OFD's build_feature_connector and ICKD's Embed: always.
        ("conv1x1_bn", SAME, [PLAIN.format(4, 4), "BatchNorm2d(4"]),
        ("conv1x1_bn", WIDER, [PLAIN.format(4, 6), "BatchNorm2d(6"]),
        # AB's Active_Soft_WRN_norelu: where channels differ.
        ("auto_bn", SAME, ["Identity()"]),
        ("auto_bn", WIDER, [PLAIN.format(4, 6), "BatchNorm2d(6"]),
        # SRRL's transfer_conv.
        ("conv1x1_bn_relu", SAME, [PLAIN.format(4, 4), "BatchNorm2d(4", "ReLU()"]),
        # RepDistiller's ConvReg, with bias; half and twice the size.
        ("regressor", SAME, ["Conv2d(4, 4, kernel_size=(1, 1), stride=(1, 1))", "BatchNorm2d(4", "ReLU()"]),
        ("regressor", ((2, 4, 8, 8), (2, 6, 4, 4)),
         ["Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))", "BatchNorm2d(6", "ReLU()"]),
        ("regressor", ((2, 4, 4, 4), (2, 6, 8, 8)),
         ["ConvTranspose2d(4, 6, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))", "BatchNorm2d(6", "ReLU()"]),
        ("regressor", ((2, 4, 8, 8), (2, 6, 5, 6)),
         ["Conv2d(4, 6, kernel_size=(4, 3), stride=(1, 1))", "BatchNorm2d(6", "ReLU()"]),
    ],
)  # fmt: skip
def test_connectors(kind: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], expected: list[str]) -> None:
    found = layers(kind, *shapes)
    assert len(found) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [("dkd:imagnet", "setting of method dkd 'imagnet'; did you mean imagenet"), ("dkdd", "unknown method 'dkdd'")],
)
def test_unknown_settings(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        setting_of(name)
