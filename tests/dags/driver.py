"""Runs one DAG as `airflow dags test` does, in Airflow's own Python: `driver.py DAG CONF`. Prints the states of its tasks
and their results as the last line. Without arguments: what is wrong with the files of DAGs, and which DAGs there are."""

from __future__ import annotations

import json
import sys

from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag


def outline(dag) -> dict[str, object]:
    """When it runs, what each task is followed by, and the assets that they tell of."""
    outlets = [asset.name for task in dag.tasks for asset in task.outlets]
    tasks = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    return {"schedule": str(dag.schedule), "tasks": tasks, "assets": outlets}


def main() -> None:
    folder = conf.get("core", "dags_folder")
    # As the processes of Airflow have it.
    sys.path.insert(0, folder)
    bag = DagBag(folder)
    if len(sys.argv) == 1:
        shown = {name: outline(dag) for name, dag in bag.dags.items()}
        print(json.dumps({"errors": bag.import_errors, "dags": shown}))
        return
    run = bag.dags[sys.argv[1]].test(run_conf=json.loads(sys.argv[2]))
    tasks = {}
    for task in run.get_task_instances():
        name = (
            task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"
        )
        tasks[name] = {"state": task.state, "tries": task.try_number}
        if task.state == "success":
            tasks[name]["result"] = task.xcom_pull(
                task_ids=task.task_id, map_indexes=task.map_index
            )
    print(json.dumps({"state": run.state, "tasks": tasks}, default=str))


main()
