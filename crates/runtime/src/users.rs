//! Users and groups as the image's /etc/passwd and /etc/group know them. Pure.

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Additional groups, sorted.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// A user or group that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number out of range.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        Some(Passwd {
            name: fields.first()?,
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).unwrap_or(&""),
        })
    })
}

/// Name, id and members of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let members = fields.get(3).map(|list| list.split(',').collect()).unwrap_or_default();
        Some((*fields.first()?, fields.get(2)?.parse().ok()?, members))
    })
}

/// Finds `user[:group]` and the additional groups; names or numbers, numbers need not be listed.
///
/// # Errors
/// [`UserError`] with the name.
pub fn resolve(wish: &str, additional: &[String], passwd_text: &str, group_text: &str) -> Result<User, UserError> {
    let (name, group) = wish.split_once(':').map_or((wish, ""), |(name, group)| (name, group));
    let mut user = User { home: "/".into(), ..User::default() };
    let number = parse_id(name)?;
    let wanted_uid = if name.is_empty() { Some(0) } else { number };
    // A name wins over a number: users may be called "1000".
    let entry = passwd(passwd_text).find(|entry| (!name.is_empty() && entry.name == name) || Some(entry.uid) == wanted_uid);
    match (&entry, wanted_uid) {
        (Some(entry), _) => {
            (user.uid, user.gid) = (in_range(entry.uid)?, in_range(entry.gid)?);
            entry.home.clone_into(&mut user.home);
        }
        (None, Some(uid)) => user.uid = uid,
        (None, None) => return Err(UserError::NoUser(name.to_owned())),
    }
    if group.is_empty() {
        let login = entry.as_ref().map_or("", |entry| entry.name);
        user.groups = groups(group_text)
            .filter(|(_, _, members)| !login.is_empty() && members.contains(&login))
            .map(|(_, gid, _)| in_range(gid))
            .collect::<Result<_, _>>()?;
    } else {
        user.gid = find_group(group, group_text)?;
    }
    for wish in additional {
        user.groups.push(find_group(wish, group_text)?);
    }
    user.groups.push(user.gid);
    user.groups.sort_unstable();
    user.groups.dedup();
    if user.home.is_empty() {
        user.home = "/".into();
    }
    Ok(user)
}

fn find_group(wish: &str, text: &str) -> Result<u32, UserError> {
    if let Some((_, gid, _)) = groups(text).find(|(name, ..)| *name == wish) {
        return in_range(gid);
    }
    parse_id(wish)?.ok_or_else(|| UserError::NoGroup(wish.to_owned()))
}

/// The kernel takes the highest number for "leave it as it is": such a user would stay root.
fn in_range(id: u32) -> Result<u32, UserError> {
    if i32::try_from(id).is_ok() { Ok(id) } else { Err(UserError::Range) }
}

fn parse_id(text: &str) -> Result<Option<u32>, UserError> {
    if text.strip_prefix('-').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(UserError::Range);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if i32::try_from(id).is_ok() => Ok(Some(id)),
        _ => Err(UserError::Range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:user,other\nuser:x:1001:\nwheel:x:10:user\n";

    fn ids(wish: &str, additional: &[&str]) -> Result<(u32, u32, Vec<u32>, String), String> {
        let additional: Vec<String> = additional.iter().map(|name| (*name).to_owned()).collect();
        let user = resolve(wish, &additional, PASSWD, GROUP).map_err(|error| error.to_string())?;
        Ok((user.uid, user.gid, user.groups, user.home))
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(ids("", &[]), Ok((0, 0, vec![0], "/root".into())));
        assert_eq!(ids("user", &[]), Ok((1000, 1001, vec![10, 100, 1001], "/home/user".into())));
        assert_eq!(ids("1000", &[]), Ok((1000, 1001, vec![10, 100, 1001], "/home/user".into())));
        assert_eq!(ids("user:users", &["root", "77"]), Ok((1000, 100, vec![0, 77, 100], "/home/user".into())));
        assert_eq!(ids("4242", &[]), Ok((4242, 0, vec![0], "/".into())));
    }

    #[test]
    fn missing_ones_get_dockers_words() {
        assert_eq!(ids("nosuch", &[]), Err("unable to find user nosuch: no matching entries in passwd file".into()));
        assert_eq!(ids("user:nosuch", &[]), Err("unable to find group nosuch: no matching entries in group file".into()));
        for (passwd, group, wish) in [
            ("evil:x:4294967295:0:::", "", "evil"),
            ("evil:x:5:4294967295:::", "", "evil"),
            ("evil:x:5:5:::", "g:x:4294967295:evil", "evil"),
            ("", "g:x:4294967295:", "5:g"),
        ] {
            assert_eq!(resolve(wish, &[], passwd, group), Err(UserError::Range), "the image cannot make it root");
        }
        for wish in ["-1", "5:-7"] {
            assert_eq!(ids(wish, &[]), Err("uids and gids must be in range 0-2147483647".into()));
        }
        assert_eq!(ids("4294967295", &[]), Err("uids and gids must be in range 0-2147483647".into()));
    }
}
