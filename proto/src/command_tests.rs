//! Commands as bytes, and bytes that are no command.

use proptest::prelude::*;

use super::*;
use crate::v1::{DeleteTopic, MembersLeave, group_command, meta_command};

fn samples() -> Vec<Command> {
    vec![
        Command::Append {
            stamp: Stamp {
                leader_time_ms: -5,
                ..Stamp::default()
            },
            batch: Bytes::from_static(b"batch"),
        },
        Command::Append {
            stamp: Stamp::default(),
            batch: Bytes::new(),
        },
        Command::Trim {
            leader_time_ms: i64::MAX,
            to_offset: u64::MAX,
        },
        Command::Roll { leader_time_ms: 7 },
        Command::Meta(MetaCommand {
            leader_time_ms: 9,
            kind: Some(meta_command::Kind::DeleteTopic(DeleteTopic {
                name: "topic".to_owned(),
                ..DeleteTopic::default()
            })),
        }),
        Command::Group(GroupCommand {
            leader_time_ms: 11,
            group: "group".to_owned(),
            kind: Some(group_command::Kind::Leave(MembersLeave {
                member_ids: vec!["member".to_owned()],
            })),
            rules: 1,
        }),
        Command::Append {
            stamp: Stamp {
                leader_time_ms: 12,
                ring_version: 3,
                ..Stamp::default()
            },
            batch: Bytes::from_static(b"batch"),
        },
        Command::Append {
            stamp: Stamp {
                leader_time_ms: 12,
                ring_version: u32::MAX,
                ..Stamp::default()
            },
            batch: Bytes::new(),
        },
        Command::Fence {
            leader_time_ms: 13,
            ring_version: 4,
        },
        Command::Compact {
            leader_time_ms: 14,
            to_offset: 99,
            tombstones_below: 7,
        },
        Command::Compacted {
            stamp: Stamp {
                leader_time_ms: 15,
                ..Stamp::default()
            },
            came_bytes: 500,
            batch: Bytes::from_static(b"rest"),
        },
        Command::Compacted {
            stamp: Stamp {
                leader_time_ms: 15,
                ring_version: 3,
                ..Stamp::default()
            },
            came_bytes: 500,
            batch: Bytes::new(),
        },
        Command::Append {
            stamp: Stamp {
                own_clock: true,
                ..Stamp::default()
            },
            batch: Bytes::from_static(b"batch"),
        },
        Command::Append {
            stamp: Stamp {
                own_clock: true,
                long_memory: true,
                ..Stamp::default()
            },
            batch: Bytes::from_static(b"batch"),
        },
    ]
}

#[test]
fn commands_survive_their_encoding() {
    for command in samples() {
        let bytes = command.to_bytes();
        assert_eq!(bytes.len(), command.encoded_len());
        assert_eq!(Command::decode(bytes), Ok(command));
    }
}

#[test]
fn commands_survive_in_two_parts_which_together_are_their_encoding() {
    for command in samples() {
        let (head, body) = command.to_parts();
        assert_eq!([head.clone(), body.clone()].concat(), command.to_bytes());
        assert_eq!(Command::from_parts(head, body), Ok(command));
    }
    assert!(Command::from_parts(Bytes::new(), Bytes::from_static(b"body")).is_err());
}

#[test]
fn a_compacted_batch_counts_as_much_as_the_one_that_came() {
    for ring_version in [0, 3] {
        let came = Command::Append {
            stamp: Stamp {
                leader_time_ms: 1,
                ring_version,
                ..Stamp::default()
            },
            batch: Bytes::from_static(b"all of a batch"),
        };
        let left = Command::Compacted {
            stamp: Stamp {
                leader_time_ms: 1,
                ring_version,
                ..Stamp::default()
            },
            came_bytes: 14,
            batch: Bytes::from_static(b"a batch"),
        };
        assert_eq!(left.log_bytes(), came.log_bytes());
        assert_eq!(came.log_bytes(), came.encoded_len());
    }
}

#[test]
fn a_newer_version_is_named_and_not_skipped() {
    let mut bytes = samples()[0].to_bytes().to_vec();
    bytes[0] = 4;
    assert_eq!(
        Command::decode(bytes.into()),
        Err(CommandError::Newer {
            version: 4,
            kind: KIND_APPEND
        })
    );
}

#[test]
fn groups_follow_the_newest_rules_that_every_node_applies() {
    let rules = [0, 8, 9, 10, 11].map(group_rules);
    assert_eq!(rules, [0, 0, 1, 2, 2]);
    assert_eq!(group_rules(UNDERSTOOD_VERSION), GROUP_RULES);
}

#[test]
fn a_truncated_command_is_damaged() {
    let bytes = samples()[2].to_bytes();
    for length in 0..bytes.len() {
        assert!(matches!(
            Command::decode(bytes.slice(..length)),
            Err(CommandError::Damaged(_))
        ));
    }
}

#[test]
fn a_metadata_command_of_a_newer_kind_reads_as_one_without_a_kind() {
    let mut bytes = BytesMut::from(&samples()[4].to_bytes()[..HEAD_BYTES]);
    let newer_field = 999 << 3 | 2;
    prost::encoding::encode_varint(newer_field, &mut bytes);
    bytes.put_slice(&[2, 0xab, 0xcd]);
    let command = Command::decode(bytes.freeze());
    assert_eq!(command, Ok(Command::Meta(MetaCommand::default())));
}

#[test]
fn bytes_after_a_command_are_damage_and_not_ignored() {
    for sample in [2, 3, 8] {
        let mut bytes = samples()[sample].to_bytes().to_vec();
        bytes.push(0);
        assert!(matches!(
            Command::decode(bytes.into()),
            Err(CommandError::Damaged(_))
        ));
    }
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    (any::<(i64, u32)>(), 1..4_u8).prop_map(|((leader_time_ms, ring_version), version)| Stamp {
        leader_time_ms,
        ring_version,
        own_clock: version >= 2,
        long_memory: version >= 3,
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        (any_stamp(), bytes.clone()).prop_map(|(stamp, batch)| Command::Append {
            stamp,
            batch: batch.into(),
        }),
        (any_stamp(), any::<u32>(), bytes).prop_map(|(stamp, came_bytes, batch)| {
            Command::Compacted {
                stamp,
                came_bytes,
                batch: batch.into(),
            }
        }),
        any::<(i64, u32)>().prop_map(|(leader_time_ms, ring_version)| Command::Fence {
            leader_time_ms,
            ring_version
        }),
        (any::<i64>(), any::<u64>()).prop_map(|(leader_time_ms, to_offset)| Command::Trim {
            leader_time_ms,
            to_offset
        }),
        any::<i64>().prop_map(|leader_time_ms| Command::Roll { leader_time_ms }),
        (any::<i64>(), ".*").prop_map(|(leader_time_ms, name)| Command::Meta(MetaCommand {
            leader_time_ms,
            kind: Some(meta_command::Kind::DeleteTopic(DeleteTopic {
                name,
                ..DeleteTopic::default()
            })),
        })),
        (any::<i64>(), ".*").prop_map(|(leader_time_ms, group)| Command::Group(GroupCommand {
            leader_time_ms,
            group,
            kind: Some(group_command::Kind::Leave(MembersLeave::default())),
            rules: 0,
        })),
    ]
}

proptest! {
    #[test]
    fn any_command_survives_its_encoding_whole_and_in_parts(command in any_command()) {
        let bytes = command.to_bytes();
        prop_assert_eq!(bytes.len(), command.encoded_len());
        let (head, body) = command.to_parts();
        prop_assert_eq!([&head[..], &body[..]].concat(), &bytes[..]);
        prop_assert_eq!(Command::from_parts(head, body), Ok(command.clone()));
        prop_assert_eq!(Command::decode(bytes), Ok(command));
    }

    #[test]
    fn what_decodes_encodes_to_what_decodes_the_same(
        version in 0..5_u8,
        kind in 0..10_u8,
        rest in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let bytes = [vec![version, kind], rest].concat();
        if let Ok(command) = Command::decode(bytes.into()) {
            prop_assert_eq!(Command::decode(command.to_bytes()), Ok(command));
        }
    }
}
