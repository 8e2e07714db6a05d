//! The shape of messages: which fields hold messages, so that what is in one can be counted before it
//! is decoded. Made from the `.proto` files by `build.rs`.

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Content of a field that has a length and is more than one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A message, by its place in the table.
    Message(usize),
    /// Numbers, one after the other.
    Packed,
}

/// The shape of one kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape(usize);

impl Shape {
    /// The shape of the request of a call, by its path: `/ropewalk.v1.Ropewalk/Metadata`.
    pub fn of_request(path: &str) -> Option<Shape> {
        let found = CALLS.iter().find(|(call, _)| *call == path)?;
        MESSAGES.get(found.1).map(|_| Shape(found.1))
    }

    /// Content of one of its fields; `None` for a single value, and for a field it does not have.
    pub fn content(self, field: u32) -> Option<Content> {
        let fields = MESSAGES.get(self.0)?;
        let found = fields.iter().find(|(number, _)| *number == field)?;
        Some(found.1)
    }

    /// The shape of a message inside another.
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
