"""The configurations that are measured, and printed with the results.

Nothing of ours is off: events, metrics, policy, time limits and syncs are as ever.  What is raised
is said here.  Postfix has what its documentation advises for throughput.
"""

from __future__ import annotations

from typing import Final

RELAY: Final = """\
hostname = "relay.bench.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = {port}
relay_hosts = ["127.0.0.0/8"]
[outbound]
route = "smarthost"
smarthost = {{ host = "127.0.0.1", port = {sink_port}, tls = "none" }}
[limits]
connections_per_ip = {connections}
connections = {connections}
free_octets = 67108864
"""
"""Relays all to one host.  The limits of connections are raised since all load comes from one
address, ``free_octets`` is lowered for small disks."""

INJECT: Final = (
    RELAY
    + """\
[[listener]]
kind = "http"
address = "127.0.0.1"
port = {http_port}
"""
)
"""The same, with HTTP."""

WEBHOOK: Final = """\
[[webhook]]
name = "bench"
url = "{url}"
secret_file = "{secret}"
batch = {batch}
"""

MX: Final = """\
hostname = "relay.bench.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = {port}
relay_hosts = ["127.0.0.0/8"]
[outbound]
route = "mx"
mx_port = {sink_port}
prohibited_networks = []
[dns]
nameservers = ["127.0.0.1:{dns_port}"]
[limits]
connections_per_ip = {connections}
connections = {connections}
free_octets = 67108864
"""
"""Finds hosts by MX, on loopback, on a port of the benchmark's own."""

ATTACKED: Final = """\
hostname = "relay.bench.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = {port}
relay_hosts = ["127.0.0.1/32"]
[[listener]]
kind = "submissions"
address = "127.0.0.1"
port = {submissions_port}
[domains."d.test"]
deliver = "maildir"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["*"]
[outbound]
route = "smarthost"
smarthost = {{ host = "127.0.0.1", port = {sink_port}, tls = "none" }}
[limits]
free_octets = 67108864
"""
"""The limits as they are by default; only the healthy client's own address may relay."""

SELECTOR: Final = """\
[[dkim."client.test".selectors]]
name = "{kind}"
private_key = "{kind}.pem"
"""

TLS: Final = """\
[tls]
certificate = "{certificate}"
private_key = "{private_key}"
"""
"""STARTTLS for whoever wants it, TLS 1.2 or later, sessions taken up by their tickets."""

POSTFIX_MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/data
command_directory = {commands}
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {root}
maillog_file = {root}/maillog
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.bench.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
local_transport = error:no local mail
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{sink_port}
smtp_tls_security_level = none
message_size_limit = 104857600
mailbox_size_limit = 0
smtpd_client_connection_count_limit = 0
biff = no
# tuned for throughput
default_process_limit = 150
default_destination_concurrency_limit = 50
initial_destination_concurrency = 20
smtp_connection_cache_destinations = static:all
smtp_connection_cache_on_demand = yes
enable_long_queue_ids = yes
in_flow_delay = 0s
qmgr_message_active_limit = 20000
qmgr_message_recipient_limit = 20000
"""

POSTFIX_MILTER: Final = """\
smtpd_milters = unix:{socket}
milter_default_action = tempfail
"""

POSTFIX_TLS: Final = """\
smtpd_tls_security_level = may
smtpd_tls_chain_files = {private_key}, {certificate}
smtpd_tls_protocols = >=TLSv1.2
"""
"""The same; tickets need no ``smtpd_tls_session_cache_database``."""

POSTFIX_MASTER: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

OPENDKIM: Final = """\
Mode s
Domain client.test
Selector rsa
KeyFile {root}/rsa.pem
Socket local:{socket}
UMask 000
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
InternalHosts 127.0.0.0/8
ExternalIgnoreList 127.0.0.0/8
OversignHeaders From
Syslog no
Background no
RequireSafeKeys no
"""

RELAY_SERVER: Final = """\
hostname = "relay.bench.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = {port}
relay_hosts = ["127.0.0.0/8"]
[[listener]]
kind = "http"
address = "127.0.0.1"
port = {http_port}
[domains."agents.test"]
deliver = "tunnel"
[tunnel_server]
enabled = true
identities = "listed"
identities_file = "identities.toml"
send_per_hour = 0
attestation = {{ key_id = "relay-primary", private_key = "attest.pem" }}
[outbound]
route = "smarthost"
smarthost = {{ host = "127.0.0.1", port = {sink_port}, tls = "none" }}
[limits]
connections_per_ip = {connections}
connections = {connections}
free_octets = 67108864
"""
"""Sends to agents what is for them, its own word attached, and relays the rest.  The agents of the
benchmark come from an address each, so that the limits of logins are as they are by default."""

GATEWAY: Final = """\
mode = "relay"
hostname = "gateway.bench.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = {port}
relay_hosts = ["127.0.0.0/8"]
[relay]
url = "ws://127.0.0.1:{relay_port}/ws"
identity = {{ agent = "agent.pem" }}
[domains."agents.test"]
deliver = "maildir"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["*"]
[limits]
connections_per_ip = {connections}
connections = {connections}
free_octets = 67108864
"""
"""One agent's, which sends through its relay and keeps its mail in a Maildir."""
