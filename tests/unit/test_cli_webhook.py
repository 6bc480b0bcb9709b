"""Tests of ``webhook``: what is shown, and what the service finds."""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.observe.segments import Segments
from protege_mta.state.hooks import HookStore

from .console import Console

CONFIG = """
hostname = "mx.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = 0
[[webhook]]
name = "app"
url = "http://127.0.0.1:1/hook"
secret_file = "secret"
"""
