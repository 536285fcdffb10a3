"""django.core.cache.backends.redis.RedisCache: HOST PORT."""

from django_cache import main

main("django.core.cache.backends.redis.RedisCache")
