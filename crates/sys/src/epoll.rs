//! Readiness: epoll, eventfd, timerfd, inotify.
