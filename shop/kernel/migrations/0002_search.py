from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations


class Migration(migrations.Migration):
    # Of PostgreSQL itself (contrib), and trusted: whoever owns the database may have it.
    dependencies = [("kernel", "0001_initial")]

    operations = [TrigramExtension()]
