//! Administration of groups.

use ropewalk_client::{ErrorCode, Offset, SeekGroup};

use crate::fake::{Fake, GROUP, TOPIC};

#[tokio::test]
async fn an_operator_lists_describes_seeks_and_deletes_groups() {
    let fake = Fake::start(1, 2).await;
    let client = fake.client().await;
    let admin = client.admin();
    let groups = admin.list_groups().await.unwrap();
    assert_eq!(groups[0].group, GROUP);
    assert_eq!(admin.describe_group(GROUP).await.unwrap().generation, 1);
    assert_eq!(admin.group_lag(GROUP).await.unwrap().len(), 2);
    let to = SeekGroup::Partitions(vec![(1, 7)]);
    let positions = admin.seek_group(GROUP, TOPIC, to).await.unwrap();
    assert_eq!(positions, [(1, 7)]);
    let to = SeekGroup::All(Offset::End);
    let positions = admin.seek_group(GROUP, TOPIC, to).await.unwrap();
    assert_eq!(positions, [(0, 99)]);
    let error = admin.describe_group("none").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownGroup), "{error}");
}

#[tokio::test]
async fn a_topic_that_grows_tells_that_keys_do_not_map_to_its_new_partitions_yet() {
    let fake = Fake::start(1, 2).await;
    let client = fake.client().await;
    let topic = client.admin().grow_topic(TOPIC, 5).await.unwrap();
    assert_eq!((topic.partitions.len(), topic.ring_partitions), (5, 2));
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_not_told_as_a_failure() {
    let fake = Fake::start(1, 1).await;
    let client = fake.client().await;
    let error = client.admin().delete_group(GROUP).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownGroup), "{error}");
    fake.world().lost_answers = 1;
    client.admin().delete_group(GROUP).await.unwrap();
}
