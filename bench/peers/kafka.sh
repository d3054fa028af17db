# shellcheck shell=bash
# Downloads and starts Apache Kafka, for the scripts that compare with it.

version=4.3.1
log4j=2.25.4
home=$cache/kafka-$version
# Address of the broker.
server=

fetch() {
    [[ -f $home/complete ]] && return
    need mvn "it fetches Kafka (Debian: apt-get install maven)"
    say "fetching Apache Kafka $version into $home ..."
    mkdir -p "$home"
    cat >"$home/pom.xml" <<END
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>highwater.peers</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$log4j</version></dependency>
  </dependencies>
</project>
END
    mvn --quiet --batch-mode -f "$home/pom.xml" dependency:copy-dependencies -DoutputDirectory="$home/libs"
    touch "$home/complete"
}

java_kafka() {
    cat >"$work/log4j2.properties" <<END
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
END
    exec java "${heap[@]}" -Dlog4j2.configurationFile="file:$work/log4j2.properties" -cp "$home/libs/*" "$@"
}

# start SETTING...: starts newly formatted nodes, which are brokers and controllers. The JVM settings are those of Kafka's own scripts.
start() {
    local node ports=() controllers=() voters=() heap=(-Xmx256m) id insync=1
    for ((node = 1; node <= nodes; node++)); do
        ports+=("$(free_port)")
        controllers+=("127.0.0.1:$(free_port)")
        voters+=("$node@${controllers[-1]}")
    done
    ((nodes == 1)) || insync=2
    server=$(printf ',127.0.0.1:%s' "${ports[@]}")
    server=${server#,}
    id=$(java_kafka kafka.tools.StorageTool random-uuid | tail -n 1)
    for ((node = 1; node <= nodes; node++)); do
        rm -rf "$work/kafka-$node"
        cat >"$work/server-$node.properties" <<END
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$(IFS=, && echo "${voters[*]}")
listeners=PLAINTEXT://127.0.0.1:${ports[node - 1]},CONTROLLER://${controllers[node - 1]}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports[node - 1]}
controller.listener.names=CONTROLLER
log.dirs=$work/kafka-$node
min.insync.replicas=$insync
offsets.topic.replication.factor=$nodes
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=$nodes
transaction.state.log.min.isr=$insync
share.coordinator.state.topic.replication.factor=$nodes
share.coordinator.state.topic.min.isr=$insync
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.check.interval.ms=1000
file.delete.delay.ms=1000
$(printf '%s\n' "$@")
END
        (java_kafka kafka.tools.StorageTool format -t "$id" -c "$work/server-$node.properties") >"$work/format.log" 2>&1 || {
            cat "$work/format.log" >&2
            die "Kafka's data directory cannot be made"
        }
    done
    heap=(-server -Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35
        -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true)
    for ((node = 1; node <= nodes; node++)); do
        launch java_kafka kafka.Kafka "$work/server-$node.properties"
    done
    for ((node = 1; node <= nodes; node++)); do
        wait_for_broker "${ports[node - 1]}" "$work/broker-$node.log" Kafka
    done
}
