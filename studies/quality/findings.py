"""The findings of a study in half a page: the answers of the claims' table, without its figures."""

import re

__all__ = ["table"]

# Finding, the claim of the table that answers it, and the page with the figures.
FINDINGS = (
    (
        "The bridge beats diffusion at equal NFE, by LPIPS (tasks x NFE)",
        "It is better than diffusion at equal NFE: LPIPS",
        "diffusion",
    ),
    ("The same by DISTS (tasks x NFE)", "It is better than diffusion at equal NFE: DISTS", "diffusion"),
    (
        "Diffusion itself gains from many steps; where it does not, a lead there says little",
        "No claim, a control",
        "diffusion",
    ),
    (
        "Trained longer, the bridge still beats it by LPIPS (super-resolution, by NFE)",
        r"Trained \d+ times as long\. I2SB is better than diffusion at equal NFE: LPIPS",
        "longer",
    ),
    (
        "Trained longer, a bridge that sees x1 beats it by LPIPS (super-resolution, by NFE)",
        r"Trained \d+ times as long\. I2SB that sees x1 is better than diffusion at equal NFE: LPIPS",
        "longer",
    ),
    (
        "The bridge reaches the best LPIPS of diffusion in fewer steps (tasks)",
        "It needs fewer steps than diffusion: NFE until its LPIPS is that of",
        "diffusion",
    ),
    (
        "The bridge reaches its own best LPIPS in fewer steps than diffusion reaches its own (tasks)",
        "It needs fewer steps than diffusion: NFE until LPIPS is within",
        "diffusion",
    ),
    ("10 steps are as good as 100 by LPIPS, to 5 % (tasks)", "Few steps lose little: LPIPS at NFE 10", "claims"),
    ("The same by patch-FID (tasks)", "Few steps lose little: patch-FID at NFE 10", "claims"),
    (
        "The bridge at its best NFE beats regression by LPIPS (networks x test sets)",
        "Perception beats regression.*LPIPS",
        "super_resolution",
    ),
    ("The same by patch-FID (networks x test sets)", "Perception beats regression.*patch-FID", "super_resolution"),
    ("The same by DISTS (networks x test sets)", "Perception beats regression.*DISTS", "texture"),
    (
        "One step is within 0.15 dB of its regression twin (bridges x test sets)",
        "One step stays close to regression",
        "one_step",
    ),
    ("Noise helps super-resolution, walks of one network (by NFE)", "SDE against OT-ODE, sr4x, walks", "samplers"),
    (
        "Leaving it out helps deblurring, as the paper has it, walks of one network (by NFE)",
        "SDE against OT-ODE, deblur, walks",
        "samplers",
    ),
    ("The same with a network trained for each (by NFE)", "SDE against OT-ODE, deblur, a network", "without_noise"),
)


def table(verdicts: str) -> str:
    """The answers that stand in the table of verdicts; what is not measured is left out."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in verdicts.splitlines()[2:]]
    lines = ["| finding | holds | figures |", "| --- | --- | --- |"]
    for finding, claim, page in FINDINGS:
        answer = next((row[1] for row in rows if re.match(claim, row[0])), None)
        if answer is not None:
            lines.append(f"| {finding} | {answer} | [{page.replace('_', ' ')}](results/{page}.md) |")
    return "\n".join(lines) + "\n"
