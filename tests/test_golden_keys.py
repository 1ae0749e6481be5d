"""Every reference value is compared with something.

An array of ``tests/golden`` that no test reads guards nothing. Which test reads it cannot be seen
from a run of some of the tests, so it is written down here: each row says which keys a module
reads, and how it names them. A key of no row, a row of no key, and a row that its module does not
bear out are errors.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from helpers.builders import GOLDEN

TESTS = Path(__file__).parent
FILES = sorted(path.stem for path in GOLDEN.glob("*.npz"))

Row = tuple[str, str, tuple[str, ...]]
"""Files, what the module says, keys; files and keys may have * and ?."""

READS: dict[str, list[Row]] = {
    "test_golden_inputs.py": [
        ("det_inputs", 'data[f"img{image}_bgr_u8"]', ("img?_bgr_u8",)),
        ("det_inputs", "data[INPUTS[name]]", ("batch_*",)),
        ("*", '_files_with("img0/pad_shape")', ("img?/pad_shape",)),
    ],
    "test_losses.py": [
        ("losses_mmdet", 'MMDET["box_target"]', ("box_*", "weight", "avg_factor")),
        ("losses_mmdet", 'MMDET[f"{tag}_none/grad"]', ("iou_none/*", "giou_none/*")),
        ("losses_mmdet", 'MMDET[f"{tag}_avg_lw2/grad"]', ("iou_avg_lw2/*", "giou_avg_lw2/*")),
        ("losses_mmdet", 'MMDET["giou_avg_zero_weight/loss"]', ("giou_avg_zero_weight/loss",)),
        ("losses_mmdet", 'MMDET["diou_none/grad"]', ("diou_none/*",)),
        ("losses_mmdet", 'MMDET["diou_avg_lw2/grad"]', ("diou_avg_lw2/*",)),
        ("losses_mmdet", 'MMDET["ciou_none/grad"]', ("ciou_none/*",)),
        ("losses_mmdet", 'MMDET["ciou_avg_lw2/grad"]', ("ciou_avg_lw2/*",)),
        ("losses_mmdet", 'MMDET[f"{tag}_avg/grad"]', ("l1_avg/*", "smooth_l1_avg/*")),
        ("losses_mmdet", 'MMDET["iou_score"]', ("cls_l*", "iou_score")),
        ("losses_mmdet", '"qfl_beta1_mean_lw2"', ("qfl_*",)),
        ("losses_mmdet", 'MMDET["focal_avg/grad"]', ("focal_avg/*",)),
        ("losses_mmdet", 'MMDET["bce_avg/grad"]', ("bce_*",)),
        ("losses_mmdet", 'MMDET["dfl_none/grad"]', ("dfl_logits", "dfl_target", "dfl_none/*")),
        ("losses_mmdet", 'MMDET["dfl_avg/grad"]', ("dfl_avg/*",)),
        ("losses_crosskd", 'CROSSKD["stu_cls"]', ("???_cls", "weight", "avg_factor")),
        ("losses_crosskd", 'f"kdqfl_beta{beta}_w_avg"', ("kdqfl_beta?_w_avg/*",)),
        ("losses_crosskd", 'CROSSKD["kdqfl_beta1_now_avg/grad"]', ("kdqfl_beta1_now_avg/*",)),
        ("losses_crosskd", '("kl_mean_T10_avg", 10.0', ("???_dist", "kl_mean_T10_avg/*")),
        ("losses_crosskd", '("kl_sum_T1_avg", 1.0', ("kl_sum_T1_avg/*",)),
    ],
    "helpers/mmdet_models.py": [
        ("det_*_data", 'data[f"img{i}/img_shape"]', ("img?/img_shape",)),
    ],
    "checkpoint/layouts/test_mmdet_golden.py": [
        ("det_*_data", 'loaded.data[f"backbone/C{i}"]', ("backbone/C?",)),
        ("backbone_*", 'data[f"C{i}"]', ("C?",)),
        ("backbone_*", "data[level.upper()]", ("P?",)),
        ("backbone_*", 'data["x"]', ("x",)),
    ],
    "helpers/mmdet_reference.py": [
        ("det_*_data", 'data["batch_input_shape"]', ("batch_input_shape",)),
        ("det_*_data", 'data[f"fpn/{level}"]', ("fpn/P?",)),
        ("det_*_data", 'f"tower/{tower}.{depth - 1}/P4"', ("tower/*",)),
        ("det_*_data", 'f"tower_preact/{tower}.2/P4"', ("tower_preact/*",)),
        ("det_*_data", 'f"{case}/img{i}/gt_bboxes"', ("?/img?/gt_bboxes", "?/img?/gt_labels")),
        ("det_*_data", 'prefix = f"{case}/grad/"', ("?/grad/*",)),
        ("det_*_data", 'f"pred/img{image}/{k}"', ("pred/*",)),
    ],
    "detectors/test_fcos_golden.py": [
        ("det_fcos*", 'f"head/{kind}/l{level}"', ("head/*",)),
        ("det_fcos*", 'f"head_eval/reg/l{level}"', ("head_eval/*",)),
        ("det_fcos*", 'f"points/l{level}"', ("points/*",)),
        ("det_fcos*", 'f"{case}/labels"', ("?/labels/*",)),
        ("det_fcos*", 'f"{case}/assigned_gt/l{level}"', ("?/assigned_gt/*",)),
        ("det_fcos*", 'f"{case}/bbox_targets"', ("?/bbox_targets/*",)),
        ("det_fcos*", 'f"{case}/loss/{theirs}"', ("?/loss/*",)),
        ("det_fcos*", 'f"{case}/loss_total"', ("?/loss_total",)),
    ],
    "detectors/test_retinanet_golden.py": [
        ("det_retinanet_data", 'f"head/{kind}/l{level}"', ("head/*",)),
        ("det_retinanet_data", 'f"anchors/l{level}"', ("anchors/*",)),
        ("det_retinanet_data", 'f"{case}/label_weights"', ("?/label_weights/*",)),
        ("det_retinanet_data", 'f"{case}/bbox_weights"', ("?/bbox_weights/*",)),
        ("det_retinanet_data", 'f"{case}/bbox_targets"', ("?/bbox_targets/*",)),
        ("det_retinanet_data", 'f"{case}/labels"', ("?/labels/*",)),
        ("det_retinanet_data", 'f"{case}/avg_factor"', ("?/avg_factor",)),
        ("det_retinanet_data", 'f"{case}/img{image}/gt_inds"', ("?/img?/gt_inds",)),
        ("det_retinanet_data", 'f"{case}/img{image}/valid_flags"', ("?/img?/valid_flags",)),
        ("det_retinanet_data", 'f"{case}/img{image}/max_overlaps"', ("?/img?/max_overlaps",)),
        ("det_retinanet_data", 'f"{case}/loss/{theirs}"', ("?/loss/*",)),
        ("det_retinanet_data", 'f"{case}/loss_total"', ("?/loss_total",)),
    ],
    "detectors/base/test_square_anchors_golden.py": [
        (file, text, keys)
        for file in ("det_atss_data", "det_ddod_data", "det_gfl_data")
        for text, keys in (
            ('f"head/{kind}/l{level}"', ("head/*",)),
            ('f"anchors/l{level}"', ("anchors/*",)),
            ('f"{case}/{prefix}label_weights"', ("?/*label_weights/*",)),
            ('f"{case}/{prefix}labels"', ("?/*labels/*",)),
            ('f"{case}/{prefix}avg_factor"', ("?/*avg_factor",)),
            ('f"{case}/{prefix}bbox_targets"', ("?/*bbox_targets/*",)),
            ('f"{case}/img{image}/{prefix}gt_inds"', ("?/img?/*gt_inds",)),
            ('f"{case}/img{image}/valid_flags"', ("?/img?/valid_flags",)),
            ('f"{case}/img{image}/{prefix}max_overlaps"', ("?/img?/*max_overlaps",)),
            ('f"{case}/loss/{theirs}"', ("?/loss/*",)),
            ('f"{case}/loss_total"', ("?/loss_total",)),
        )
    ],
    "detectors/test_ddod_golden.py": [
        ("det_ddod_data", "_num_pos_samples_per_level", ("?/state/*",)),
    ],
    "detectors/test_autoassign_golden.py": [
        ("det_autoassign_data", 'f"head/cls/l{level}"', ("head/cls/*",)),
        ("det_autoassign_data", 'f"head/obj/l{level}"', ("head/obj/*",)),
        ("det_autoassign_data", "'head_eval'", ("head/reg/*", "head_eval/reg/*")),
        ("det_autoassign_data", 'f"{case}/img{image}/bbox_targets"', ("?/img?/bbox_targets",)),
        ("det_autoassign_data", '"inside_gt_bbox_mask_raw"', ("?/img?/inside_*",)),
        ("det_autoassign_data", "center_prior_weight", ("?/img?/center_prior_weight",)),
        ("det_autoassign_data", 'f"{case}/loss/{name}"', ("?/loss/*",)),
        ("det_autoassign_data", 'f"{case}/loss_total"', ("?/loss_total",)),
    ],
    "helpers/crosskd_reference.py": [
        ("crosskd_*", 'f"stu_fpn/l{i}"', ("stu_fpn/*",)),
        ("crosskd_*", 'f"tea_fpn/l{i}"', ("tea_fpn/*",)),
        ("crosskd_*", 'data["batch_input_shape"]', ("batch_input_shape",)),
        ("crosskd_*", 'f"img{i}/gt_bboxes"', ("img?/gt_*", "img?/img_shape")),
    ],
    "methods/crosskd/test_crosskd_golden.py": [
        ("crosskd_*", "reference.expected(theirs)", ("loss/loss_cls", "loss/loss_bbox")),
        ("crosskd_*", '"loss_centerness"', ("loss/loss_centerness",)),
        ("crosskd_*", '"loss_dfl"', ("loss/loss_dfl",)),
        ("crosskd_*", '"losses_center_kd"', ("loss/losses_center_kd", "loss/loss_???_kd")),
        ("crosskd_*", 'startswith("loss/loss_feat_kd")', ("loss/loss_feat_kd*",)),
        ("crosskd_*", 'data["loss_kd_sum"]', ("loss_kd_sum",)),
        ("crosskd_*", 'data["loss_total"]', ("loss_total",)),
        ("crosskd_*", 'f"{who}_cls/l{level}"', ("*_cls/l?",)),
        ("crosskd_*", 'f"{who}_ctr/l{level}"', ("*_ctr/l?",)),
        ("crosskd_*", 'f"{who}_reg/l{level}"', ("*_reg/l?",)),
        ("crosskd_*", 'f"{who}_{theirs}_hold/l{level}"', ("???_???_hold/l?",)),
        ("crosskd_*", 'key.startswith("grad_kd/")', ("grad_kd/*",)),
        ("crosskd_*", 'data["grad_featkd/stu_fpn/l2"]', ("grad_featkd/stu_fpn/l2",)),
        ("crosskd_*", 'data["grad_total/stu_fpn/l2"]', ("grad_total/stu_fpn/l2",)),
    ],
    "helpers/ld_reference.py": [
        (file, text, keys)
        for file in ("ld_gfl", "bckd_gfl")
        for text, keys in (
            ('"head_cfg_json"', ("head_cfg_json",)),
            ('f"{name}/l{level}"', ("stu_???/l?", "tea_???/l?", "label*/l?")),
            ('data["num_total_pos"]', ("num_total_pos",)),
            ('f"img{image}/gt_bboxes"', ("img?/gt_*", "img?/img_shape")),
        )
    ],
    "methods/ld/test_valuable_region.py": [
        ("ld_gfl", 'levels("vlr_region")', ("vlr_region/*",)),
        ("bckd_gfl", '"bckd_gfl"', ("vlr_region/*",)),
    ],
    "methods/ld/test_ld.py": [
        ("ld_gfl", 'f"loss/{TERMS[term]}"', ("loss/loss_ld", "loss/loss_ld_vlr", "loss/loss_kd")),
        ("ld_gfl", 'f"grad/{TERMS[term]}/stu_{name}/l{level}"', ("grad/*",)),
        ("ld_gfl", 'f"loss/loss_{theirs}"', ("loss/loss_cls", "loss/loss_bbox", "loss/loss_dfl")),
        ("ld_gfl", 'data["loss/loss_kd_neg"]', ("loss/loss_kd_neg",)),
        ("losses_mmdet", 'data[f"kl_{tag}/grad"]', ("kl_T*", "kl_teacher_logits")),
    ],
    "methods/test_bckd.py": [
        ("bckd_gfl", 'f"loss/{theirs}"', ("loss/loss_kd", "loss/loss_score_kd")),
        ("bckd_gfl", 'f"grad/{theirs}/stu_{maps}/l{level}"', ("grad/*",)),
        ("bckd_gfl", 'f"loss/loss_{theirs}"', ("loss/loss_cls", "loss/loss_bbox", "loss/loss_dfl")),
        (
            "bckd_gfl",
            '"loss_ld", "loss_ld_vlr", "loss_kd_neg", "loss_score_kd_vlr"',
            ("loss/loss_ld*", "loss/loss_kd_neg", "loss/loss_score_kd_vlr"),
        ),
    ],
    "methods/test_pkd.py": [
        ("pkd", 'f"{side}/l{level}"', ("S/l?", "T/l?")),
        ("pkd", 'f"loss/l{level}"', ("loss/l?",)),
        ("pkd", '"loss_all_levels"', ("loss_all_levels",)),
        ("pkd", 'f"grad_S/l{level}"', ("grad_S/l?",)),
        ("pkd", '"resize_tea/loss"', ("resize_???/loss",)),
        ("pkd", '"const_channel/loss"', ("const_channel/*",)),
        ("pkd", '["loss_weight"]', ("loss_weight",)),
        ("losses_crosskd", 'data["pkd_lw6/grad"]', ("feat_?", "pkd_lw6/*")),
    ],
    "methods/test_fgd.py": [
        ("fgd", "k.startswith(case)", ("*/S", "*/T", "*/img?/gt_bboxes", "*/param/*")),
        ("fgd", '"loss_relation": "rela_loss"', ("*/??_loss", "*/mask_loss", "*/rela_loss")),
        ("fgd", 'DATA[f"{case}/loss"]', ("*/loss",)),
        ("fgd", 'DATA[f"{case}/grad_S"]', ("*/grad_S",)),
        ("fgd", '("mask_fg", "mask_bg")', ("*/mask_?g",)),
        ("fgd", 'f"{case}/hyper"', ("*/hyper",)),
        ("fgd", 'f"img{i}/img_shape"', ("img?/img_shape",)),
        ("fgd", 'DATA["batch_input_shape"]', ("batch_input_shape",)),
    ],
    "methods/test_mgd.py": [
        ("mgd", "k.startswith(case)", ("*/S", "*/T", "*/rand", "*/*_mgd", "*/param/*")),
        ("mgd", 'DATA[f"{case}/mask_keep"]', ("*/mask_keep",)),
        ("mgd", 'DATA[f"{case}/loss"]', ("*/loss",)),
        ("mgd", 'DATA[f"{case}/grad_S"]', ("*/grad_S",)),
    ],
    "methods/test_cankd.py": [
        ("cankd", 'DATA[f"{case}/S"]', ("*/S", "*/T")),
        ("cankd", 'DATA[f"{case}/loss"]', ("*/loss",)),
        ("cankd", 'DATA[f"{case}/grad_S"]', ("*/grad_S",)),
        ("cankd", 'f"{case}/param/non_local_att.{theirs}.{kind}"', ("*/param/*",)),
        ("cankd", 'f"{case}/grad/non_local_att.{theirs}.{kind}"', ("*/grad/*",)),
    ],
    "helpers/pgd_reference.py": [
        ("pgd_maps_*", 'f"rand/call{call}"', ("rand/*",)),
        ("pgd_maps_*", 'self.levels("tea_cls"), self.levels("tea_reg")', ("tea_*",)),
        ("pgd_maps_*", 'f"img{n}/gt_bboxes"', ("img?/gt_*", "img?/img_shape")),
        ("pgd_maps_*", '"head_cfg_json"', ("head_cfg_json",)),
    ],
    "methods/pgd/test_pgd_golden.py": [
        ("pgd_maps_*", 'f"cls_value_maps_{kind}"', ("cls_value_maps_*",)),
        ("pgd_maps_*", 'f"reg_value_maps_{kind}"', ("reg_value_maps_*",)),
        ("pgd_maps_*", '"back_maps"', ("back_maps/*",)),
        ("pgd_losses", '"hyper"', ("hyper",)),
        ("pgd_losses", 'f"n{images}/"', ("n?/S", "n?/T", "n?/mask_?g")),
        ("pgd_losses", 'f"cls/{name}_unweighted"', ("n?/cls/*_unweighted",)),
        ("pgd_losses", 'case["cls/loss"]', ("n?/cls/loss",)),
        ("pgd_losses", 'case["cls/loss_each_image_alone"]', ("n2/cls/loss_each_image_alone",)),
        ("pgd_losses", 'case["cls/grad_S"]', ("n?/cls/grad_S",)),
        ("pgd_losses", 'case["reg/loss"]', ("n?/reg/loss",)),
        ("pgd_losses", 'case["reg/loss_empty_mask"]', ("n?/reg/loss_empty_mask",)),
        ("pgd_losses", 'case["reg/grad_S"]', ("n?/reg/grad_S",)),
        ("pgd_pgw_unit", 'data["bbox_preds"]', ("anchors", "points", "cls_logits", "bbox_preds")),
        ("pgd_pgw_unit", 'data["gt_labels"]', ("gt_*",)),
        ("pgd_pgw_unit", 'data[f"{key}/rand"]', ("*/topk*/rand",)),
        ("pgd_pgw_unit", 'data[f"{key}/w"]', ("*/topk*/w",)),
    ],
}
ROWS = [(module, *row) for module, rows in READS.items() for row in rows]


def _keys(file: str) -> list[str]:
    with np.load(GOLDEN / f"{file}.npz") as arrays:
        return list(arrays.files)


@pytest.mark.parametrize("file", FILES)
def test_every_array_is_read_by_a_test(file: str):
    patterns = [p for _, files, _, keys in ROWS if fnmatchcase(file, files) for p in keys]
    unread = [key for key in _keys(file) if not any(fnmatchcase(key, p) for p in patterns)]
    assert not unread, f"no test reads {unread} of {file}.npz"


def test_no_row_is_left_of_what_is_gone():
    keys = {file: _keys(file) for file in FILES}
    for module, files, _, patterns in ROWS:
        found = [key for file in FILES if fnmatchcase(file, files) for key in keys[file]]
        for pattern in patterns:
            assert any(fnmatchcase(key, pattern) for key in found), f"{module}: {files}, {pattern}"


@pytest.mark.parametrize("module", READS)
def test_a_module_reads_what_its_rows_say(module: str):
    source = (TESTS / module).read_text()
    for files, text, keys in READS[module]:
        assert text in source, f"{module} does not read {keys} of {files} as {text} any more"
