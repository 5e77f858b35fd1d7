"""A nightly DAG: validate, run, report. For Airflow 3, with `nst` on the workers' PATH and a folder
that they all see.

    cp deploy/airflow/nst_nightly.py "$AIRFLOW_HOME/dags/"
    airflow variables set nst_folder /srv/nst    # has config.yaml and manifest.csv; gets out/
    airflow dags test nst_nightly                # try it by day

Exit code 3 (some rows failed) makes `run` skipped, not failed, and is not tried again: the report
says which rows. 4 (the hours are over, or the worker was stopped) and 1 are tried again the next
evening, from where it stopped; the DAG's own next run waits for that and finds pictures cached.

Run here: Airflow 3.3.2, `dags test` with nst itself (tests/deploy/test_airflow.py).
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, TriggerRule

FOLDER = "{{ var.value.get('nst_folder', '/srv/nst') }}"
HOURS = 7.5

with DAG(
    "nst_nightly",
    description="Stylizes tonight's photos",
    doc_md=__doc__,
    schedule="0 22 * * *",
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,  # the folder's lock would refuse a second one
    tags=["nst"],
):
    validate = BashOperator(
        task_id="validate",
        bash_command=f"cd '{FOLDER}' && "
        "exec nst validate --config config.yaml --manifest manifest.csv --speed none",
        skip_on_exit_code=2,  # problems are in the log; of pictures, they fail only their rows
    )
    run = BashOperator(
        task_id="run",
        bash_command=f"cd '{FOLDER}' && exec nst run --config config.yaml --manifest manifest.csv "
        f"--output out --max_hours {HOURS:g} --log_format json",
        skip_on_exit_code=3,
        retries=1,
        retry_delay=timedelta(hours=24 - HOURS),
        # SIGTERM to nst, which stops in order.
        execution_timeout=timedelta(hours=HOURS + 0.5),
        trigger_rule=TriggerRule.NONE_FAILED,
    )
    report = BashOperator(
        task_id="report",
        bash_command=f"cd '{FOLDER}' && nst runs out && exec nst report out",
        trigger_rule=TriggerRule.ALL_DONE,
    )
    validate >> run >> report
