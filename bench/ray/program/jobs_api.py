"""Jobs by Ray's own Jobs API: `python jobs_api.py DASHBOARD`, one a line of standard input: its entrypoint.

Each is submitted as it is read, and answered with the time just before in nanoseconds since the epoch, once
the job has ended. It runs in Ray's environment, where the head is.
"""

import sys
import time

from ray.job_submission import JobStatus, JobSubmissionClient

ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)

client = JobSubmissionClient(sys.argv[1])
sys.stdout.write("ready\n")
sys.stdout.flush()
for line in sys.stdin:
    at = time.time_ns()
    job = client.submit_job(entrypoint=line.strip(), entrypoint_num_cpus=0.25)
    while (status := client.get_job_status(job)) not in ENDED:
        time.sleep(0.1)
    assert status == JobStatus.SUCCEEDED, client.get_job_logs(job)
    sys.stdout.write(f"{at}\n")
    sys.stdout.flush()
