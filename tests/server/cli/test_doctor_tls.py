"""The doctor looks at the certificate as a start would, and at what would cross a network in clear text."""

from __future__ import annotations

import pytest

from server.cli.doctor.tls import look_at_tls
from server.config import Settings


def settings(**values: str) -> Settings:
    return Settings(_env_file=None, **values)


def test_a_certificate_that_cannot_be_read_is_told_as_a_start_would_tell_it(tmp_path):
    [finding] = look_at_tls(settings(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")))
    assert finding.level == "FAIL"
    assert "TLS_CERT" in finding.found
    assert "cert.pem" in finding.found


def test_half_a_certificate_is_none(tmp_path):
    [finding] = look_at_tls(settings(tls_key=str(tmp_path / "key.pem")))
    assert (finding.level, finding.found) == ("FAIL", "TLS_CERT and TLS_KEY must be set together, or neither")


@pytest.mark.parametrize(("host", "level"), [("127.0.0.1", "ok"), ("::1", "ok"), ("0.0.0.0", "warn")])
def test_clear_text_is_well_on_this_machine_and_nowhere_else(host, level):
    [finding] = look_at_tls(settings(host=host))
    assert finding.level == level
