@echo off
rem The door to tools/build.py for cmd: build.bat --dry-run
py -3 "%~dp0run.py" "%~dp0tools\build.py" %* || exit /b
