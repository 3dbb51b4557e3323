//! The tables of most cases: users, their posts, and one table with a column of every type.

use diesel::prelude::*;

pub const BLOG: &str = "
    CREATE TABLE users (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        hair TEXT,
        age INTEGER NOT NULL DEFAULT 18
    );
    CREATE TABLE posts (
        id INTEGER PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users (id),
        title TEXT NOT NULL,
        votes INTEGER NOT NULL DEFAULT 0 CHECK (votes >= 0)
    );
";

/// [`BLOG`] with two users and three posts.
pub const FULL_BLOG: &str = "
    CREATE TABLE users (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        hair TEXT,
        age INTEGER NOT NULL DEFAULT 18
    );
    CREATE TABLE posts (
        id INTEGER PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users (id),
        title TEXT NOT NULL,
        votes INTEGER NOT NULL DEFAULT 0 CHECK (votes >= 0)
    );
    INSERT INTO users (id, name, hair, age)
        VALUES (1, 'Sean', 'black', 30), (2, 'Tess', NULL, 28), (3, 'Ada', 'grey', 36);
    INSERT INTO posts (id, user_id, title, votes)
        VALUES (1, 1, 'First', 3), (2, 1, 'Second', 5), (3, 2, 'Third', 1);
";

diesel::table! {
    users {
        id -> Integer,
        name -> Text,
        hair -> Nullable<Text>,
        age -> Integer,
    }
}

diesel::table! {
    posts {
        id -> Integer,
        user_id -> Integer,
        title -> Text,
        votes -> Integer,
    }
}

diesel::joinable!(posts -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, posts);

#[derive(
    Debug,
    Clone,
    PartialEq,
    Queryable,
    QueryableByName,
    Selectable,
    Identifiable,
    Insertable,
    AsChangeset,
)]
#[diesel(table_name = users, treat_none_as_null = true)]
pub struct User {
    pub id: i32,
    pub name: String,
    pub hair: Option<String>,
    pub age: i32,
}

#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Insertable,
)]
#[diesel(table_name = posts, belongs_to(User))]
pub struct Post {
    pub id: i32,
    pub user_id: i32,
    pub title: String,
    pub votes: i32,
}

/// Every column has a value: a batch is one statement.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = users, treat_none_as_default_value = false)]
pub struct Named<'a> {
    pub name: &'a str,
    pub age: i32,
}

/// `None` stands for the column's default: a batch is one statement per row.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = users)]
pub struct Sparse<'a> {
    pub name: &'a str,
    pub hair: Option<&'a str>,
    pub age: Option<i32>,
}

pub fn user(id: i32, name: &str, hair: Option<&str>, age: i32) -> User {
    User { id, name: name.to_owned(), hair: hair.map(str::to_owned), age }
}

pub fn post(id: i32, user_id: i32, title: &str, votes: i32) -> Post {
    Post { id, user_id, title: title.to_owned(), votes }
}

/// The rows of `users` in `FULL_BLOG`.
pub fn everybody() -> Vec<User> {
    vec![
        user(1, "Sean", Some("black"), 30),
        user(2, "Tess", None, 28),
        user(3, "Ada", Some("grey"), 36),
    ]
}

pub const VALUES: &str = "
    CREATE TABLE everything (
        id INTEGER PRIMARY KEY,
        small SMALLINT,
        int INTEGER,
        big BIGINT,
        float FLOAT,
        double DOUBLE,
        text TEXT,
        blob BLOB,
        flag BOOLEAN,
        date DATE,
        time TIME,
        stamp TIMESTAMP
    );
    INSERT INTO everything (id) VALUES (0);
";

diesel::table! {
    everything {
        id -> Integer,
        small -> Nullable<SmallInt>,
        int -> Nullable<Integer>,
        big -> Nullable<BigInt>,
        float -> Nullable<Float>,
        double -> Nullable<Double>,
        text -> Nullable<Text>,
        blob -> Nullable<Binary>,
        flag -> Nullable<Bool>,
        date -> Nullable<Date>,
        time -> Nullable<Time>,
        stamp -> Nullable<Timestamp>,
    }
}
