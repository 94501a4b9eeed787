"""The training room: one loop for both stages, on DeepSpeed, with exact resume.

`job` (what is to be done) -> `launch` (processes) -> `worker` (one rank) -> `loop`. Modules without torch:
`job`, `launch`, `schedule`, `deepspeed_config`.
"""
