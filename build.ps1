# The door to tools/build.py for PowerShell: .\build.ps1 --dry-run
& py -3 "$PSScriptRoot\run.py" "$PSScriptRoot\tools\build.py" @args
exit $LASTEXITCODE
