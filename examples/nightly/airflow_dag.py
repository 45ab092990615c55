"""Tag new recordings every night: a DAG for Airflow 3."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

TAG = "satpipe tag --config /etc/satpipe/job.yaml --quiet || [ $? -eq 3 ]"

with DAG("satpipe", schedule="0 2 * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1):
    BashOperator(task_id="tag", bash_command=TAG, retries=2, retry_delay=timedelta(minutes=10))
