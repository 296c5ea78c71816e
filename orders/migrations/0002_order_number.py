from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "CREATE SEQUENCE order_number START 100001", reverse_sql="DROP SEQUENCE order_number"
        ),
    ]
