//! Shapes of messages: the fields that hold messages, so that their contents can be counted before they are
//! decoded. `build.rs` generates them from the `.proto` files.

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Content of a field that has a length and is more than one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A message, by its index in the table.
    Message(usize),
    /// Packed numbers.
    Packed,
}

/// Shape of one type of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape(usize);

impl Shape {
    /// Shape of a call's request, by the call's path: `/ropewalk.v1.Ropewalk/Metadata`.
    pub fn of_request(path: &str) -> Option<Shape> {
        let found = CALLS.iter().find(|(call, _)| *call == path)?;
        MESSAGES.get(found.1).map(|_| Shape(found.1))
    }

    /// Content of a field; `None` for a single value, and for a field that the message does not have.
    pub fn content(self, field: u32) -> Option<Content> {
        let fields = MESSAGES.get(self.0)?;
        let found = fields.iter().find(|(number, _)| *number == field)?;
        Some(found.1)
    }

    /// Shape of a message inside another.
    pub fn of_content(message: usize) -> Shape {
        Shape(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(shape: Shape, field: u32) -> Shape {
        match shape.content(field) {
            Some(Content::Message(message)) => Shape::of_content(message),
            other => panic!("field {field} holds {other:?}"),
        }
    }

    #[test]
    fn fields_that_hold_messages_are_known_at_every_depth() {
        let heartbeat = Shape::of_request("/ropewalk.v1.Raft/Heartbeat").unwrap();
        let entries = inside(inside(inside(heartbeat, 1), 5), 4);
        assert_eq!(entries.content(3), None, "a command is bytes");
        let membership = inside(entries, 4);
        assert_eq!(inside(membership, 1).content(1), Some(Content::Packed));
    }

    #[test]
    fn names_and_maps_are_told_apart() {
        let metadata = Shape::of_request("/ropewalk.v1.Ropewalk/Metadata").unwrap();
        assert_eq!(metadata.content(1), None, "names are single values");
        let alter = Shape::of_request("/ropewalk.v1.Ropewalk/AlterTopic").unwrap();
        assert!(matches!(alter.content(2), Some(Content::Message(_))));
        assert_eq!(Shape::of_request("/ropewalk.v1.Ropewalk/Reboot"), None);
    }
}
