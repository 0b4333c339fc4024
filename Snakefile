# The one DAG. Every rule is one notebook run; what there is to do comes from artifact.jobs, so that this file, `python -m artifact run`
# and a cluster's executor plugin agree. Receipts carry their identity in their names (artifact.experiment): file times decide nothing.
import sys

from artifact import cluster, estimates, experiment, jobs

PROFILE = experiment.load_profile(str(config.get("profile", "demo")))
JOBS = jobs.plan(PROFILE)
URGENCY = estimates.urgency(JOBS)

EXHIBITS = jobs.exhibits(PROFILE) if config.get("exhibits") else []

rule all:
    input: [output for job in JOBS for output in job.outputs], [exhibit.file for exhibit in EXHIBITS]
    default_target: True

# For `snakemake --report` alone (make report): what the last job drew, each with the sentence of its receipt. It is there: nothing is run.
for exhibit in EXHIBITS:
    rule:
        name: f"exhibit_{exhibit.file.stem}"
        input: ancient(JOBS[-1].receipt)
        output: report(exhibit.file, caption="artifact/caption.rst", category=exhibit.category, labels={"exhibit": exhibit.name})
        params: says=lambda wildcards, says=exhibit.says: says  # a sentence may hold braces

for job in JOBS:
    rule:
        name: jobs.rule_name(job)
        input: [ancient(path) for path in job.needs]
        # What is there and whole is never Snakemake's to remove: not before a job, not after one that failed or was killed.
        output: [update(path) for path in job.outputs]
        threads: PROFILE.threads
        priority: int(URGENCY[job.receipt])
        resources: **cluster.resources(PROFILE, job)
        # by functions: a name or path may hold braces, which are no wildcards
        params: name=lambda wildcards, job=job: job.name, profile=lambda wildcards: str(config.get("profile", "demo")),
                python=lambda wildcards: sys.executable
        shell: "MMC_PARENT=$PPID exec {params.python:q} -m artifact job {params.name:q} --profile {params.profile:q}"
