"""Prints where the nodes of the cluster are, as clients are told: nodes.py BOOTSTRAP."""

import sys

from kafka import KafkaAdminClient


def main(bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    for node in admin.describe_cluster()["brokers"]:
        print(f"{node['host']}:{node['port']}")
    admin.close()


main(*sys.argv[1:])
