"""The one table of everything a user may write, with where each key comes from and how far it is honoured.

Theory: parser, JSON Schema and reference documentation are made from `SECTIONS`. A key is

* *honoured* when it has its effect;
* *accepted* when it only tunes where, how or how cheaply work runs, or states a wish: the work is still the
  work the user asked for, so a file for SkyPilot or dstack runs, with a warning that names the key;
* *not-yet* when going on without it would break what the user relies on: another program environment
  (`image_id`), missing files (`file_mounts`, `volumes`), a size that is named elsewhere (`instance_type`), a
  law (`data.residency`, `region`), a limit of money (`budget`), a duty at an end (`hooks`), a measure of load
  that is not taken (`target_qps_per_replica`). It is refused, with the stable code ``not-yet``.

The keys of each kind of declaration stand in a module of their own; what they share in `keys_common`.
"""

from collections.abc import Iterator

from steersman.spec.keys_common import ALTERNATIVE, DATA_SECTION, INPUT_SECTION, RESOURCES_SECTION
from steersman.spec.keys_fleet import CLUSTER_SECTION, FLEET_SECTION, NODE_SECTION
from steersman.spec.keys_gateway import GATEWAY_SECTION, TLS_SECTION
from steersman.spec.keys_job import CHECKPOINT_SECTION, CODES_SECTION, JOB_SECTION, RETRY_SECTION
from steersman.spec.keys_queue import BUDGET_SECTION, PREEMPTION_SECTION, QUEUE_SECTION, QUOTA_SECTION
from steersman.spec.keys_scaling import METRIC_SECTION, PROMETHEUS_SECTION, WINDOW_SECTION
from steersman.spec.keys_service import MODEL_SECTION, RANGE_SECTION, SERVICE_SECTION, SLO_SECTION
from steersman.spec.keys_serving import POLICY_SECTION, PROBE_SECTION, ROLLOUT_SECTION, SERVING_SECTION

SECTIONS = (
    JOB_SECTION,
    RESOURCES_SECTION,
    ALTERNATIVE,
    RETRY_SECTION,
    CODES_SECTION,
    CHECKPOINT_SECTION,
    INPUT_SECTION,
    DATA_SECTION,
    SERVICE_SECTION,
    MODEL_SECTION,
    RANGE_SECTION,
    SERVING_SECTION,
    POLICY_SECTION,
    METRIC_SECTION,
    PROMETHEUS_SECTION,
    WINDOW_SECTION,
    PROBE_SECTION,
    ROLLOUT_SECTION,
    SLO_SECTION,
    GATEWAY_SECTION,
    TLS_SECTION,
    QUEUE_SECTION,
    QUOTA_SECTION,
    BUDGET_SECTION,
    PREEMPTION_SECTION,
    FLEET_SECTION,
    NODE_SECTION,
    CLUSTER_SECTION,
)


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """The table for documentation: section, key, standing, origin, note."""
    for section in SECTIONS:
        for key in section.keys:
            yield section.name, key.name, key.standing, key.origin, key.note
