"""The report's content: verdict first, then the table, the pictures, and how it was made."""

from __future__ import annotations

from typing import Any

from nnunet_osasis.evaluation.report.document import Block, Code, Heading, Picture, Table, Text, to_html, to_markdown

TITLE = "Does one-shot stylization help on the second scanner?"

LIMITS_PHANTOM = (
    "This shows that the line works, no more: the images are rendered phantoms from one seed, the network is small, "
    "the trainings are short and few. Neither the order of the methods nor the size of a gain says anything about "
    "patients, and nothing here is evidence of clinical benefit."
)

LIMITS_OWN = (
    "This is a first look at your data, no more: images were reduced in size, the split has one seed, the network is "
    "small, the trainings are short and few. Before relying on it, train at full length on several seeds. It is no "
    "evidence of clinical benefit."
)

CAPTIONS = {
    "before_after.png": "Test cases at the quartiles of Dice without style transfer: chosen by that rule, not by eye.",
    "dice.png": "Dice of every method on both scanners.",
    "styles.png": "Training images in the style of every method.",
}


def write_texts(results: dict[str, Any], pictures: dict[str, bytes]) -> tuple[str, str]:
    """``(HTML, Markdown)`` of the report for a results dictionary and PNG bytes by file name."""
    blocks = report_blocks(results, pictures)
    return to_html(TITLE, blocks), to_markdown(TITLE, blocks)


def report_blocks(results: dict[str, Any], pictures: dict[str, bytes]) -> list[Block]:
    """Everything the report says, in order."""
    own = results["data"]["kind"] == "own"
    labels = {method["key"]: method["label"] for method in results["methods"]}

    def picture(name: str) -> Picture:
        return Picture(name, pictures[name], CAPTIONS[name])

    return [
        Text(results["verdict"]["title"], strong=True),
        Text(" ".join(results["verdict"]["sentences"])),
        Text(LIMITS_OWN if own else LIMITS_PHANTOM),
        picture("before_after.png"),
        Heading("Segmentation"),
        _dice_table(results, labels, own=own),
        Text(_dice_text(results)),
        picture("dice.png"),
        Heading("Pictures"),
        picture("styles.png"),
        _fidelity_table(results, labels, own=own),
        Text(
            (
                ""
                if own
                else "PSNR and CIEDE2000 (smaller is better) compare with the true, noise-free second-scanner image. "
            )
            + "Edge shift: how far the lesion's visible edge moved along the normal of the mask's outline, "
            "median over outline points, and the share that moved by more than 1 px; masks stay valid only while it is "
            "small. Even two pictures of one scene differ in it a little, by noise and sharpness."
        ),
        Heading("Data"),
        Text(_data_text(results)),
        Heading("How it was made"),
        _stage_table(results),
        Text(f"The run that wrote this report took {results['wall_seconds']:.0f} s."),
        Text("Public commands, run with nnUNet_raw, nnUNet_preprocessed and nnUNet_results beside this report:"),
        Code(tuple(stage["command"] for stage in results["stages"] if stage["command"])),
        Text(", ".join(f"{name} {value}" for name, value in results["machine"].items()) + "."),
        Text("Figures of every case are in results.json."),
    ]


def _dice_text(results: dict[str, Any]) -> str:
    trained = results["summary"][0]["target_trainings"]
    chance = (
        f"Intervals are 95 % bootstrap intervals over the {len(trained)} trainings of each method and over test cases. "
        f"Chance in training weighs heavily on the second scanner: trainings without style transfer that differ in "
        f"nothing but chance and validation cases ended between {min(trained):.3f} and {max(trained):.3f} there."
        if len(trained) > 1
        else "Intervals are 95 % bootstrap intervals over test cases of one training per method. They do not hold the "
        "chance in training, which weighs heavily on the second scanner."
    )
    return (
        f"Mean Dice. {chance} Differences are to training without style transfer, on the second scanner, paired by "
        "case. All methods share network, length of training and cases; histogram matching, pooled Reinhard and OSASIS "
        "see the same one image of the second scanner, no mask."
    )


def _dice_table(results: dict[str, Any], labels: dict[str, str], *, own: bool) -> Table:
    columns = ("trained with", "first scanner", "second scanner", "difference to no style transfer")
    rows = [
        (
            labels[row["method"]],
            interval(row["source"]),
            interval(row["target"]),
            "–" if row["method"] == "none" else signed(row["difference"]),
            *(() if own else (_percent(row["gap_closed"]),)),
        )
        for row in results["summary"]
    ]
    return Table(columns if own else (*columns, "gap closed"), tuple(rows))


def _fidelity_table(results: dict[str, Any], labels: dict[str, str], *, own: bool) -> Table:
    truth = () if own else ("PSNR to truth (dB)", "CIEDE2000 to truth")
    rows = [
        (
            "source image as it is" if row["method"] == "none" else labels[row["method"]],
            *(() if own else (interval(row["psnr"], 1), interval(row["ciede2000"], 2))),
            _number(row["boundary_median"]),
            _percent(row["boundary_moved"]),
        )
        for row in results["fidelity"]
    ]
    return Table(("images", *truth, "edge shift (px)", "edge moved > 1 px"), tuple(rows))


def _stage_table(results: dict[str, Any]) -> Table:
    stages: dict[str, list[dict[str, Any]]] = {}
    for stage in results["stages"]:
        stages.setdefault(stage["stage"], []).append(stage)
    rows = [
        (
            title,
            f"{sum(step['seconds'] for step in steps):.0f}",
            "yes" if all(step["reused"] for step in steps) else "no",
        )
        for title, steps in stages.items()
    ]
    return Table(("stage", "seconds (sum over commands)", "kept from an earlier run"), tuple(rows))


def _data_text(results: dict[str, Any]) -> str:
    data, settings = results["data"], results["settings"]
    origin = (
        f"Your images, reduced to at most {settings['own_side']} px"
        if data["kind"] == "own"
        else f"Phantom scenes of {settings['side']} px with one or two polyps, each seen by two cameras"
    )
    return (
        f"{origin}. {data['training']} images for training, {data['test_source']} test images of the first and "
        f"{data['test_target']} of the second scanner. Reference: {data['reference']}. Seed {settings['seed']}."
    )


def interval(value: dict[str, float] | None, digits: int = 3) -> str:
    """``0.812 (0.790 to 0.834)``; a dash for None."""
    if value is None:
        return "–"
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def signed(value: dict[str, float]) -> str:
    """``+0.123 (+0.100 to +0.146)``."""
    return f"{value['mean']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
