//! The conformance suite on every plane.

mod machines;

/// One test per scenario.
macro_rules! suite {
    ($($scenario:ident)*) => {
        mod simulation {
            $(#[test]
            fn $scenario() {
                for seed in 0..crate::machines::SEEDS {
                    let mut machine = crate::machines::Simulated::new(seed);
                    highwater_runtime::conformance::$scenario(&mut machine);
                }
            })*
        }

        mod uring_on_glommio {
            $(#[test]
            fn $scenario() {
                let mut machine = crate::machines::Real::new(highwater_runtime::HostKind::Glommio);
                highwater_runtime::conformance::$scenario(&mut machine);
            })*
        }

        mod uring_on_a_thread {
            $(#[test]
            fn $scenario() {
                let mut machine = crate::machines::Real::new(highwater_runtime::HostKind::Thread);
                highwater_runtime::conformance::$scenario(&mut machine);
            })*
        }
    };
}

suite! {
    echo_returns_every_byte_in_order
    connections_know_their_listener
    connections_know_the_address_they_were_made_to
    bulks_and_small_messages_mix
    bulks_wait_for_their_bytes
    pause_and_resume_lose_nothing
    a_slow_reader_gets_everything_in_order
    closing_after_sends_delivers_and_closing_now_does_not_wait
    closing_now_ends_whatever_is_going_on
    clients_that_vanish_within_a_bulk_disturb_nobody
    many_connections_at_once_are_all_served
    the_peers_end_is_reported_and_its_replies_still_arrive
    a_broken_connection_is_reported
    migration_keeps_unread_bytes_and_order
    messages_between_shards_arrive_in_order
    timers_fire_once_and_in_order
    disk_operations_complete_once_and_read_what_was_written
    every_file_job_wakes_a_sleeping_shard
    the_end_of_a_turn_comes_before_sleep
    shutdown_is_reported_once_and_every_shard_ends
    a_shard_exits_alone
    outgoing_connections_carry_bytes_both_ways
    outgoing_connections_reach_every_shard_of_their_own_process
    both_ends_of_an_outgoing_connection_have_the_same_addresses
    a_connect_to_a_port_without_a_listener_is_refused
    a_connect_that_nobody_answers_ends_at_its_deadline
    a_connection_that_is_closed_before_it_is_connected_has_one_outcome
    both_ends_of_an_outgoing_connection_receive_in_place
    pausing_an_outgoing_connection_loses_nothing
    the_end_of_an_outgoing_connection_is_reported_once
    shutdown_ends_outgoing_connections_and_connects
}
