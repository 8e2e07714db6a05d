//! The macro for the table of entities: one row has an entity's field in the state, its type, and its commands.

/// Defines `State`, with a field for each row, and `handler`, which finds the code of a command. A command in
/// no row does not compile.
macro_rules! entities {
    ($($name:ident: $entity:ty => [$($command:ident),* $(,)?],)*) => {
        /// The metadata itself: one field for each entity.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub(super) struct State {
            $(pub $name: $entity,)*
        }

        impl State {
            const ENTITIES: usize = [$(stringify!($name)),*].len();

            /// Every entity, in the order of the table.
            pub fn entities(&self) -> [&dyn Entity; State::ENTITIES] {
                [$(&self.$name),*]
            }

            /// Every entity, mutable.
            pub fn entities_mut(&mut self) -> [&mut dyn Entity; State::ENTITIES] {
                [$(&mut self.$name),*]
            }
        }

        /// The code of a command.
        fn handler(kind: &Kind) -> &dyn Apply {
            match kind {
                $($(Kind::$command(command) => command,)*)*
            }
        }
    };
}

pub(in crate::meta) use entities;
