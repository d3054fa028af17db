"""Prints the advertised addresses of the nodes: nodes.py BOOTSTRAP."""

import sys

from kafka import KafkaAdminClient


def main(bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    for node in admin.describe_cluster()["brokers"]:
        print(f"{node['host']}:{node['port']}")
    admin.close()


main(*sys.argv[1:])
